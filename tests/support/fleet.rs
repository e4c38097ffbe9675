//! A machine of the fleet that has no agent: it joins with a token and tells what it is by curl, with the
//! certificate that it got.

use super::{Site, curl, temp_folder};
use compliance::message::ClientId;
use serde_json::{Value, json};
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

const JSON: &str = "application/json";

/// A client of a site.
pub struct Member {
    id: ClientId,
    folder: tempfile::TempDir,
    /// Where the site is reached over HTTPS.
    site: String,
}

impl Member {
    /// A machine that joins under that name.
    pub fn join(site: &Site, name: &str) -> Self {
        static N: AtomicU64 = AtomicU64::new(1);
        let n = N.fetch_add(1, Ordering::Relaxed);
        let folder = temp_folder();
        let token = folder.path().join("token");
        let create = ["client", "join-token", "create", "--name", name, "--output"];
        site.depot(create.iter().copied().chain([token.to_str().unwrap()])).ok();
        let token: dp::field::JoinToken =
            fs::read_to_string(token).unwrap().trim().parse().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        let secret: String = token.secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let asked = json!({
            "secret": secret, "id": format!("0199f0c2-a7b1-7e0d-8455-{n:012x}"), "name": name,
            "request": request.pem().unwrap(),
        });
        let id = asked["id"].as_str().unwrap().parse().unwrap();
        let member = Self { id, folder, site: site.url.replace("http://", "https://") };
        let joined = member.send("POST", "join", &asked, false);
        fs::write(member.path("key"), key.serialize_pem()).unwrap();
        fs::write(member.path("certificate"), joined["certificate"].as_str().unwrap()).unwrap();
        member
    }

    /// The same machine, where its site is reached elsewhere now.
    pub fn at(self, site: &Site) -> Self {
        Self { site: site.url.replace("http://", "https://"), ..self }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Its id.
    pub fn id(&self) -> ClientId {
        self.id
    }

    fn send(&self, method: &str, what: &str, body: &Value, as_itself: bool) -> Value {
        let text = self.send_bytes(method, what, body.to_string().as_bytes(), JSON, as_itself);
        serde_json::from_str(&text).unwrap()
    }

    fn send_bytes(
        &self,
        method: &str,
        what: &str,
        body: &[u8],
        media_type: &str,
        as_itself: bool,
    ) -> String {
        let file = self.path("body");
        fs::write(&file, body).unwrap();
        let mut curl = curl();
        // Whether the site is itself is not what is tried here.
        curl.args(["-k", "--fail-with-body", "-X", method, "-H"]);
        curl.arg(format!("content-type: {media_type}"));
        if as_itself {
            curl.args(["--cert", &self.path("certificate"), "--key", &self.path("key")]);
        }
        curl.arg("--data-binary").arg(format!("@{file}"));
        let done = curl.arg(format!("{}/api/v1/client/{what}", self.site)).output().unwrap();
        let text = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success(), "{text} {}", String::from_utf8_lossy(&done.stderr));
        text.into_owned()
    }

    /// Asks for something, as itself.
    pub fn get(&self, what: &str) -> Value {
        serde_json::from_str(&self.send_bytes("GET", what, b"", JSON, true)).unwrap()
    }

    /// Tells something that is answered with nothing.
    pub fn put(&self, what: &str, body: &Value) {
        self.send_bytes("PUT", what, body.to_string().as_bytes(), JSON, true);
    }

    /// Tells how updates stand on it: a batch as it travels.
    pub fn report(&self, batch: &[u8]) {
        self.send_bytes("POST", "states", batch, "application/vnd.depot.states", true);
    }

    /// Tells packages that it has besides those told before; from nothing if `base` is 0.
    pub fn tell(&self, base: u64, packages: &[(&str, &str)]) {
        let all = packages.iter().map(|(name, version)| {
            ((*name).to_owned(), json!([{"version": version, "arch": "amd64"}]))
        });
        let changed: serde_json::Map<String, Value> = all.collect();
        let change = json!({
            "base": base, "revision": base + 1, "os": "debian", "os_version": "12",
            "packages": {"kind": "deb", "changed": changed},
        });
        let kept = self.send("PUT", "facts", &change, true);
        assert_eq!(kept["revision"], base + 1);
    }
}
