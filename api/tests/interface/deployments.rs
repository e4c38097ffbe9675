//! Groups, deployments and their content; what clients are told of them, and what they tell.

use crate::client::{Answer, Client, TestSite};
use ::client::policy::{Policy, SignedPolicy};
use axum::body::Body;
use compliance::fleet::{Enrolment, Fingerprint, Standing};
use compliance::message::ClientId;
use contentlib::{AddOptions, Aliases};
use deployment::policy::{DeployedUpdate, DeployedUpdates};
use jiff::Timestamp;
use packager::compose::Base;
use packager::path::TreePath;
use packager::retention::Retention;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::num::NonZeroU32;
use std::sync::Arc;
use sync::adapter::{Criteria, Extent, Said};
use sync::digests::{Algorithm, Digests, to_hex};
use sync::name::UpdateId;
use sync::update::{File, Item, Licence, Publication, Update};
use uuid::Uuid;

fn id(name: &str) -> UpdateId {
    UpdateId::named(&[name])
}

/// An update with one file, whose bytes are its name.
fn update(name: &str) -> Update {
    let sha256 = to_hex(&Sha256::digest(name.as_bytes()));
    let file = File {
        name: format!("{name}.deb"),
        size: name.len() as u64,
        digests: Digests::of(Algorithm::Sha256, &sha256).unwrap(),
        ..File::default()
    };
    let mut update = Update::new(id(name), name, name, Timestamp::UNIX_EPOCH);
    update.items.push(Item { files: vec![file], ..Item::default() });
    update
}

/// A site whose catalogue has these.
fn site_with(updates: Vec<Update>) -> TestSite {
    let site = TestSite::new();
    let machine = site.site.updates().unwrap();
    let source = "local".parse().unwrap();
    let criteria = Arc::new(Criteria::default());
    let mut intake = machine.catalogue().intake(&source, 1, criteria, Timestamp::now()).unwrap();
    updates.into_iter().for_each(|update| intake.take(Said::Update(Box::new(update))).unwrap());
    intake.settle(Extent::Whole).unwrap();
    intake.commit(Value::Null).unwrap();
    site
}

/// A client that is known.
fn client_of(site: &TestSite, n: u8) -> Client {
    let id = Uuid::from_u128(n.into());
    let new = Enrolment {
        id: ClientId(id),
        key: Fingerprint([n; 32]),
        name: format!("pc-{n}"),
        standing: Standing::Approved,
    };
    site.site.fleet().unwrap().states.enrol(new, Timestamp::now()).unwrap();
    site.fleet_client(id)
}

/// Puts the file of an update into a package.
fn hold(site: &TestSite, package: &str, update: &str) {
    let packages = site.site.content().unwrap().packages;
    let name: packager::name::PackageName = package.parse().unwrap();
    let keep = Retention { keep: NonZeroU32::MIN, days: None };
    let _ = packages.create_composed(name.clone(), keep);
    let composition = packages.compose(&name, Base::Newest, Arc::default()).unwrap();
    let path = format!("{}/{update}.deb", id(update));
    let path = TreePath::new(path.as_bytes()).unwrap();
    let aliases = Aliases { sha256: true, sha1: false };
    let options = AddOptions { aliases, ..AddOptions::default() };
    composition.place(&path, None, update.as_bytes(), &options).unwrap();
    composition.finish().unwrap();
    site.site.deployed().look(&site.site).unwrap();
}

fn policy(answer: Answer) -> Policy {
    let signed: SignedPolicy = serde_json::from_value(answer.expect(200).json).unwrap();
    serde_json::from_str(&signed.policy).unwrap()
}

async fn told(client: &Client) -> Policy {
    policy(client.get("/api/v1/client/policy").await)
}

async fn document(client: &Client, digest: &str) -> Vec<DeployedUpdate> {
    let at = format!("/api/v1/client/deployed-updates/{digest}");
    let found = client.get(&at).await.expect(200);
    assert_eq!(blake3::hash(&found.body).to_hex().as_str(), digest);
    serde_json::from_slice::<DeployedUpdates>(&found.body).unwrap().updates
}

async fn group(admin: &Client, name: &str, updates: &[&str]) -> Answer {
    admin.post("/api/v1/update-groups", json!({"name": name, "updates": updates})).await
}

#[tokio::test]
async fn groups_are_filled_by_name_and_filter_and_say_what_is_wrong_with_their_updates() {
    let expired = Update { publication: Publication::Expired, ..update("c") };
    let newer = Update { supersedes: [id("b")].into(), ..update("d") };
    let site = site_with(vec![update("a"), update("b"), expired, newer]);
    let admin = site.client("admin").await;
    group(&admin, "No", &[]).await.refused(422, "name");
    group(&admin, "nov", &["a", "nothing"]).await.expect(404);
    let made = group(&admin, "nov", &["a"]).await.expect(201);
    assert_eq!(made.header("location"), "/api/v1/update-groups/nov");
    group(&admin, "nov", &[]).await.refused(409, "group");
    let at = "/api/v1/update-groups/nov/updates";
    let change = json!({"filter": "name in (b, c)"});
    let done = admin.post(at, change).await.expect(200).json;
    assert_eq!((&done["added"], &done["updates"]), (&json!(2), &json!(3)));
    admin.post(at, json!({"filter": "nam in b"})).await.refused(422, "filter");
    hold(&site, "p", "a");
    let shown = admin.get("/api/v1/update-groups/nov").await.expect(200).json;
    assert_eq!(
        shown["marks"],
        json!({"content-missing": 2, "expired": 1, "superseded": 1}),
        "{shown}"
    );
    let items = admin.get(at).await.expect(200).json["items"].clone();
    let marks = |name: &str| {
        let all = items.as_array().unwrap();
        all.iter().find(|it| it["name"] == name).unwrap()["marks"].clone()
    };
    assert_eq!(marks("a"), json!([]));
    assert_eq!(marks("b"), json!(["superseded", "content-missing"]));
    let list = admin.get("/api/v1/updates?search=a").await.expect(200).json;
    assert_eq!(list["items"][0]["content"], "held", "{list}");
    let one = admin.get("/api/v1/updates/a").await.expect(200).json;
    assert_eq!((&one["content"], &one["packages"]), (&json!("held"), &json!(["p"])));
    let done = admin.post(at, json!({"remove": ["b", id("c").to_string()]})).await.expect(200).json;
    assert_eq!((&done["removed"], &done["updates"]), (&json!(2), &json!(1)));
    admin.delete("/api/v1/update-groups/nov").await.expect(200);
    admin.get("/api/v1/update-groups/nov").await.refused(404, "group");
}

#[tokio::test]
async fn a_deployment_reaches_the_clients_that_it_is_for_and_follows_what_it_is_made_of() {
    let licence = Some(Licence { id: "terms".into(), files: Vec::new() });
    let site = site_with(vec![update("a"), update("b"), Update { licence, ..update("l") }]);
    let admin = site.client("admin").await;
    let (one, two) = (client_of(&site, 1), client_of(&site, 2));
    admin.post("/api/v1/collections", json!({"name": "pilot"})).await.expect(201);
    let add = |name: &str| {
        let change = json!({"add": [name]});
        let admin = &admin;
        async move { admin.post("/api/v1/collections/pilot/clients", change).await.expect(200) }
    };
    add("pc-1").await;
    group(&admin, "nov", &["a", "l"]).await.expect(201);
    let new = json!({"group": "nov", "collection": "pilot", "deadline": "2099-01-01T00:00:00Z"});
    let create = async |more: Value| {
        let mut body = new.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        admin.post("/api/v1/deployments", body).await
    };
    // What is wrong is told before anything is made.
    create(json!({"collection": "no"})).await.refused(404, "collection");
    create(json!({"group": "no"})).await.refused(404, "group");
    create(json!({"deadline": "2000-01-01T00:00:00Z"})).await.refused(422, "deadline");
    create(json!({})).await.refused(409, "accept_licences");
    let refused = create(json!({"accept_licences": true})).await;
    assert!(refused.json["detail"].as_str().unwrap().contains("a, l"), "{}", refused.json);
    refused.refused(409, "package");
    let preview = admin.post("/api/v1/deployment-preview", new.clone()).await.expect(200).json;
    assert_eq!((&preview["missing"], &preview["targets"]), (&json!(2), &json!(1)));
    hold(&site, "p", "a");
    let made = create(json!({"accept_licences": true, "allow_missing": true})).await.expect(201);
    let view = &made.json;
    assert_eq!((&view["name"], &view["content"]), (&json!("nov-pilot"), &json!("missing")));
    assert_eq!((&view["missing"], &view["targets"]), (&json!(1), &json!(1)));
    // Terms are accepted once for all.
    admin.delete("/api/v1/deployments/nov-pilot").await.expect(200);
    hold(&site, "p", "l");
    let made = create(json!({"alert_below": 90})).await.expect(201).json;
    assert_eq!(made["content"], "held");

    let policy = told(&one).await;
    let [deployed] = policy.deployments.as_slice() else { panic!("{policy:?}") };
    assert_eq!(deployed.name, "nov-pilot");
    assert!(told(&two).await.deployments.is_empty());
    let updates = document(&one, &deployed.updates).await;
    assert_eq!(updates.len(), 2);
    assert!(updates.iter().all(|it| it.missing().count() == 0));
    let at = format!("/api/v1/client/deployed-updates/{}", deployed.updates);
    two.get(&at).await.expect(404);
    let tag = format!("\"{}\"", deployed.updates);
    one.send("GET", &at, &[("if-none-match", &tag)], Body::empty()).await.expect(304);

    // Who waits hears of it at once, and nobody else does.
    let wait = |policy: &Policy, seconds: u64| {
        format!("/api/v1/client/policy?after={}&wait={seconds}", policy.revision)
    };
    let (one_waits, two_waits) = (wait(&policy, 50), wait(&told(&two).await, 2));
    let change = async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let change = json!({"add": ["b"]});
        admin.post("/api/v1/update-groups/nov/updates", change).await.expect(200)
    };
    let (heard, silent, _) = tokio::join!(one.get(&one_waits), two.get(&two_waits), change);
    silent.expect(204);
    let newer = crate::deployments::policy(heard);
    assert_ne!(newer.deployments[0].updates, deployed.updates);
    let updates = document(&one, &newer.deployments[0].updates).await;
    assert_eq!(updates.iter().filter(|it| it.missing().count() > 0).count(), 1);
    one.get(&at).await.expect(404);
    let shown = admin.get("/api/v1/deployments/nov-pilot").await.expect(200).json;
    assert_eq!((&shown["content"], &shown["missing"]), (&json!("missing"), &json!(1)));

    // A document that was lost is made anew.
    let folder = site.site.folder().join("cache/deployments");
    std::fs::remove_dir_all(folder).unwrap();
    document(&one, &newer.deployments[0].updates).await;

    // A client that comes into the collection, and windows that the collection gets.
    add("pc-2").await;
    site.site.deployed().look(&site.site).unwrap();
    assert_eq!(told(&two).await.deployments.len(), 1);
    let windows = json!({"windows": {"nights": {"start": "2026-01-01 01:00", "minutes": 180,
        "clock": "utc", "recurrence": "daily"}}});
    admin.json("PATCH", "/api/v1/collections/pilot", windows).await.expect(200);
    site.site.deployed().look(&site.site).unwrap();
    assert_eq!(told(&two).await.windows.len(), 1);
    admin.delete("/api/v1/collections/pilot").await.refused(409, "collection");

    let change =
        async |change: Value| admin.json("PATCH", "/api/v1/deployments/nov-pilot", change).await;
    change(json!({"deadline": null, "experience": {"grace": true}})).await.expect(200);
    let policy = told(&one).await;
    assert_eq!(policy.deployments[0].deadline, None);
    assert!(policy.deployments[0].experience.grace && policy.deployments[0].experience.commit);
    change(json!({"collection": "all"})).await.expect(200);
    change(json!({"group": "no"})).await.refused(404, "group");
    change(json!({"experience": {"max_run_time": 1}})).await.refused(422, "max_run_time");
    change(json!({"enabled": false})).await.expect(200);
    assert!(told(&one).await.deployments.is_empty());
    change(json!({"enabled": true})).await.expect(200);
    admin.put("/api/v1/client-settings", json!({"updates_enabled": false})).await.expect(200);
    site.site.fleet().unwrap().policies.look(&site.site).unwrap();
    let off = told(&one).await;
    assert!(off.deployments.is_empty() && off.windows.is_empty());
}

#[tokio::test]
async fn what_clients_tell_is_counted_by_state_and_error_and_forgotten_with_them() {
    let site = site_with(vec![update("a")]);
    let admin = site.client("admin").await;
    let clients: Vec<Client> = (1..=4).map(|n| client_of(&site, n)).collect();
    hold(&site, "p", "a");
    group(&admin, "nov", &["a"]).await.expect(201);
    let new = json!({"group": "nov", "collection": "all", "available": "2020-01-01T00:00:00Z",
        "deadline": "2020-01-02T00:00:00Z", "alert_below": 90, "name": "nov"});
    let made = admin.post("/api/v1/deployments", new).await.expect(201).json;
    let deployment = made["id"].as_str().unwrap();
    let report = |n: u128, number: u64, state: &str, failure: Value| {
        let compliance = if state == "succeeded" { "compliant" } else { "non-compliant" };
        let mut it = json!({"deployment": deployment, "updates_of": "", "compliance": compliance,
            "enforcement": state, "evaluation": "succeeded", "age": 60,
            "updates": [{"update": id("a"), "state": "installed", "age": 60}]});
        if !failure.is_null() {
            it["failure"] = failure;
        }
        json!({"client": Uuid::from_u128(n), "incarnation": 7, "number": number, "deployments": [it]})
    };
    let put =
        async |n: usize, body: Value| clients[n - 1].put("/api/v1/client/enforcement", body).await;
    put(1, report(2, 1, "succeeded", Value::Null)).await.refused(422, "client");
    put(1, json!({"client": 1})).await.refused(422, "body");
    put(1, report(1, 2, "succeeded", Value::Null)).await.expect(204);
    let broke = json!({"code": 100, "detail": "dpkg was interrupted"});
    put(1, report(1, 1, "failed", broke.clone())).await.expect(204);
    put(2, report(2, 1, "failed", broke)).await.expect(204);
    put(3, report(3, 1, "waiting-for-window", Value::Null)).await.expect(204);
    let status = async || admin.get("/api/v1/deployments/nov/status").await.expect(200).json;
    let now = status().await;
    assert_eq!(
        (&now["targets"], &now["told"], &now["percent"]),
        (&json!(4), &json!(3), &json!(25))
    );
    let states = json!({"succeeded": 1, "failed": 1, "waiting-for-window": 1, "unknown": 1});
    assert_eq!(now["enforcement"], states);
    let errors = json!([{"code": 100, "clients": 1, "example": "dpkg was interrupted"}]);
    assert_eq!((&now["errors"], &now["alert_below"]), (&errors, &json!(90)));
    let devices = async |query: &str| {
        let at = format!("/api/v1/deployments/nov/devices{query}");
        let items = admin.get(&at).await.expect(200).json["items"].clone();
        let names =
            items.as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(devices("").await, "pc-1 pc-2 pc-3 pc-4");
    assert_eq!(devices("?state=failed").await, "pc-2");
    assert_eq!(devices("?error=100").await, "pc-2");
    assert_eq!(devices("?state=unknown").await, "pc-4");
    assert_eq!(devices("?state=compliant").await, "pc-1");
    let odd = admin.get("/api/v1/deployments/nov/devices?state=odd").await;
    odd.refused(400, "state");
    let one = admin.get("/api/v1/deployments/nov/devices/pc-1").await.expect(200).json;
    assert_eq!(
        (&one["updates"][0]["name"], &one["updates"][0]["state"]),
        (&json!("a"), &json!("installed"))
    );

    // It is said once that too few comply, and once that enough do.
    let say = || api::deployed::tell(&site.site, Timestamp::now()).unwrap();
    say();
    say();
    let messages = async |number: u32| {
        let at = format!("/api/v1/status-messages?id={number}");
        admin.get(&at).await.expect(200).json["items"].as_array().unwrap().len()
    };
    assert_eq!((messages(9020).await, messages(9021).await), (1, 0));
    for n in 2..=4 {
        put(n, report(n as u128, 9, "succeeded", Value::Null)).await.expect(204);
    }
    say();
    assert_eq!((messages(9020).await, messages(9021).await), (1, 1));
    assert_eq!(status().await["percent"], 100);

    admin.delete("/api/v1/clients/pc-4").await.expect(200);
    let now = status().await;
    assert_eq!((&now["targets"], &now["told"]), (&json!(3), &json!(3)));
    admin.delete("/api/v1/deployments/nov").await.expect(200);
    admin.get("/api/v1/deployments/nov/status").await.refused(404, "deployment");
}

#[tokio::test]
async fn a_package_that_alone_holds_what_is_deployed_goes_by_force_alone() {
    let site = site_with(vec![update("a"), update("b")]);
    let admin = site.client("admin").await;
    let create = async |body: Value| admin.post("/api/v1/deployment-packages", body).await;
    create(json!({"name": "x".repeat(51)})).await.refused(422, "name");
    create(json!({"name": "p", "description": "x".repeat(128)})).await.refused(422, "description");
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().to_str().unwrap();
    let made = create(json!({"name": "p", "source": source})).await.expect(201).json;
    assert_eq!(made["version"], 1);
    create(json!({"name": "q", "source": source})).await.refused(409, "source");
    create(json!({"name": "p"})).await.expect(409);
    create(json!({"name": "q"})).await.expect(201);
    // Files come from a folder; what one package holds the other takes from the library.
    let from = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        std::fs::write(from.path().join(format!("{name}.deb")), name).unwrap();
    }
    group(&admin, "nov", &["a", "b"]).await.expect(201);
    let download = async |package: &str, body: Value| {
        let at = format!("/api/v1/deployment-packages/{package}/download");
        admin.result(admin.post(&at, body).await).await
    };
    let done = download("p", json!({"group": "nov", "from_folder": from.path()})).await;
    assert_eq!((&done["version"], &done["failed"]), (&json!(2), &json!(0)), "{done}");
    let written = folder.path().join(id("a").to_string()).join("a.deb");
    assert_eq!(std::fs::read(&written).unwrap(), b"a");
    let done = download("q", json!({"updates": ["a"]})).await;
    assert_eq!(done["outcomes"][0]["outcome"], "held", "{done}");

    let new = json!({"group": "nov", "collection": "all"});
    admin.post("/api/v1/deployments", new).await.expect(201);
    let refused = admin.delete("/api/v1/deployment-packages/p").await;
    let said = refused.json["detail"].as_str().unwrap().to_owned();
    assert!(said.contains("alone holds b ") && !said.contains("a, b"), "{said}");
    refused.refused(409, "force");
    let shown = async || admin.get("/api/v1/deployments/nov-all").await.expect(200).json;
    assert_eq!(shown().await["content"], "held");
    admin.delete("/api/v1/deployment-packages/p?force=true").await.expect(200);
    let now = shown().await;
    assert_eq!((&now["content"], &now["missing"]), (&json!("missing"), &json!(1)));
    let at = "/api/v1/deployment-packages/q/remove";
    admin.post(at, json!({"updates": ["a"]})).await.refused(409, "force");
    let done = admin.result(admin.post(at, json!({"updates": ["a"], "force": true})).await).await;
    assert_eq!(done["version"], 3, "{done}");
    assert_eq!(shown().await["missing"], 2);
    // What lies in the folder that the package had is not downloaded.
    create(json!({"name": "r", "source": source})).await.expect(201);
    download("r", json!({"group": "nov"})).await;
    assert_eq!(shown().await["content"], "held");
    std::fs::remove_file(&written).unwrap();
    let all = admin.get("/api/v1/deployment-packages").await.expect(200).json;
    assert_eq!(all["items"].as_array().unwrap().len(), 2, "{all}");
}
