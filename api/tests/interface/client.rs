//! A site in a temporary folder and clients of its interface. Every answer is held to the OpenAPI
//! document.

use crate::schema;
use api::config::Config;
use api::{Site, local_router, router};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::Value;
use std::sync::LazyLock;
use tower::ServiceExt;

pub static DOCUMENT: LazyLock<Value> = LazyLock::new(api::routes::document);

/// A site that ends with the test.
pub struct TestSite {
    pub folder: tempfile::TempDir,
    pub site: Site,
}

impl TestSite {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config { data: folder.path().join("data"), ..Config::default() };
        config.library.reserve = api::config::ByteSize(0);
        change(&mut config);
        let site = Site::open(config, "a test").unwrap();
        Self { folder, site }
    }

    /// Whoever may open the data folder.
    pub fn local(&self) -> Client {
        Client { router: local_router(self.site.clone()), token: None }
    }

    /// A client over the network, without a token.
    pub fn stranger(&self) -> Client {
        Client { router: router(self.site.clone()), token: None }
    }

    /// A distribution point: whose connection shows the certificate of that id.
    pub fn point(&self, id: &str) -> Client {
        let peer = dp::identity::Peer::Point(id.parse().unwrap());
        let router = router(self.site.clone()).layer(axum::extract::Extension(peer));
        Client { router, token: None }
    }

    /// A machine of the fleet: whose connection shows the certificate of that id.
    pub fn fleet_client(&self, id: uuid::Uuid) -> Client {
        let id = dp::field::ClientId::from_bits(id.as_u128());
        let peer = dp::identity::Peer::Client(id);
        let router = router(self.site.clone()).layer(axum::extract::Extension(peer));
        Client { router, token: None }
    }

    /// A client over the network with a new token.
    pub async fn client(&self, role: &str) -> Client {
        let new = serde_json::json!({"name": format!("{role} {}", unique()), "role": role});
        let made = self.local().post("/api/v1/tokens", new).await.expect(201);
        let token = made.json["token"].as_str().unwrap().to_owned();
        Client { router: router(self.site.clone()), token: Some(token) }
    }

    /// A folder with some files, as a package source.
    pub fn source(&self, name: &str) -> String {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(folder.join("sub")).unwrap();
        std::fs::write(folder.join("a.txt"), "first").unwrap();
        std::fs::write(folder.join("sub/b.txt"), "second").unwrap();
        std::fs::write(folder.join("c.bin"), vec![7; 100_000]).unwrap();
        std::os::unix::fs::symlink("a.txt", folder.join("link")).unwrap();
        folder.to_str().unwrap().to_owned()
    }
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Somebody who asks.
#[derive(Clone)]
pub struct Client {
    pub router: Router,
    pub token: Option<String>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub json: Value,
}

impl Answer {
    /// Fails the test if the status is another.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// Fails the test if it is no problem of that status that names the field.
    #[track_caller]
    pub fn refused(self, status: u16, field: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(answer.json["status"], status);
        let fields: Vec<&str> = answer.json["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|error| error["field"].as_str())
            .collect();
        assert!(fields.contains(&field), "{field} is not named: {}", answer.json);
        answer
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Client {
    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Body::empty()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], Body::empty()).await
    }

    pub async fn post(&self, path: &str, json: Value) -> Answer {
        self.json("POST", path, json).await
    }

    pub async fn put(&self, path: &str, json: Value) -> Answer {
        self.json("PUT", path, json).await
    }

    pub async fn json(&self, method: &str, path: &str, json: Value) -> Answer {
        let headers = [("content-type", "application/json")];
        self.send(method, path, &headers, Body::from(json.to_string())).await
    }

    /// Sends a request, and holds its answer to the document.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Answer {
        let answer = self.send_unchecked(method, path, headers, body).await;
        let template = template_of(path).unwrap_or_else(|| panic!("{path} has no route"));
        let media_type = answer.headers.get("content-type").map(|v| v.to_str().unwrap());
        let method = method.to_lowercase();
        let wrong = schema::violation(
            &DOCUMENT,
            &template,
            &method,
            answer.status,
            media_type,
            &answer.body,
        );
        assert_eq!(wrong, None, "{}", String::from_utf8_lossy(&answer.body));
        answer
    }

    /// Sends a request that the document need not know.
    pub async fn send_unchecked(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(body).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map(|all| all.to_bytes()).unwrap_or_default();
        let json = serde_json::from_slice(&body).unwrap_or_default();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body, json }
    }

    /// Follows the job that an answer accepted to its end; the job.
    #[track_caller]
    pub fn finish(&self, accepted: Answer) -> impl Future<Output = Value> {
        let accepted = accepted.expect(202);
        let client = self.clone();
        async move {
            let location = accepted.header("location").to_owned();
            let events = client.get(&format!("{location}/events")).await.expect(200);
            let text = String::from_utf8(events.body.to_vec()).unwrap();
            let last = text.rsplit("event: end\ndata: ").next().unwrap();
            serde_json::from_str(last.trim()).unwrap_or_else(|_| panic!("no end: {text}"))
        }
    }

    /// The same, of a job that must end well; its result.
    pub async fn result(&self, accepted: Answer) -> Value {
        let job = self.finish(accepted).await;
        assert_eq!(job["state"], "done", "{job}");
        job["result"].clone()
    }
}

/// The path of the document that `path` is one of.
fn template_of(path: &str) -> Option<String> {
    let path = path.split('?').next()?;
    let parts: Vec<&str> = path.split('/').collect();
    let fits = |template: &&String| {
        let other: Vec<&str> = template.split('/').collect();
        other.len() == parts.len()
            && other.iter().zip(&parts).all(|(want, have)| want.starts_with('{') || want == have)
    };
    // A fixed word wins over a name, as in the router.
    let paths = DOCUMENT["paths"].as_object()?.keys();
    paths.filter(fits).min_by_key(|template| template.matches('{').count()).cloned()
}
