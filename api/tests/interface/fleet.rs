//! Clients: joining, standing, policy, facts, states, and what the site makes of them.

use crate::client::{Answer, Client, TestSite};
use ::client::policy::{Policy, SignedPolicy};
use ::client::settings::Settings;
use axum::body::Body;
use compliance::digest::StateDigest;
use compliance::message::{
    Batch, ClientId, Incarnation, Kind, Scan, ScanOutcome, State, StateMessage, UpdateRevision,
};
use dp::field::JoinToken;
use dp::identity::Identity;
use jiff::Timestamp;
use serde_json::{Value, json};
use sync::name::UpdateId;
use uuid::Uuid;

const STATES: [(&str, &str); 1] = [("content-type", "application/vnd.depot.states")];

/// A machine that wants to be a client.
struct Machine {
    id: Uuid,
    name: String,
    request: String,
}

impl Machine {
    fn new(n: u128) -> Self {
        let request = Identity::request().unwrap().pem().to_owned();
        Self { id: Uuid::from_u128(n), name: format!("pc-{n}"), request }
    }

    async fn join(&self, site: &TestSite, token: &JoinToken) -> Answer {
        let secret: String = token.secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let asked = json!({
            "secret": secret, "id": self.id.to_string(), "name": self.name, "request": self.request
        });
        site.stranger().post("/api/v1/client/join", asked).await
    }

    /// Itself, on a connection that shows its certificate.
    fn client(&self, site: &TestSite) -> Client {
        site.fleet_client(self.id)
    }

    /// A batch with these states, which is all that it has.
    fn batch(&self, first: u64, states: &[(u128, State)]) -> Batch {
        let update = |n| UpdateRevision { id: UpdateId(Uuid::from_u128(n)), revision: 1 };
        let states = states.iter().map(|(n, state)| (update(*n), *state));
        Batch {
            client: ClientId(self.id),
            incarnation: Incarnation(7.try_into().unwrap()),
            first,
            next: first + 1,
            kind: Kind::Full,
            sent: Timestamp::now().as_second(),
            scan: Some(Scan {
                age: 5,
                outcome: ScanOutcome::Completed,
                completed: Some(5),
                catalogue: 1,
            }),
            waiting: 0,
            digest: StateDigest::of(states.clone()),
            states: states.map(|(update, state)| StateMessage { update, state, age: 5 }).collect(),
        }
    }

    async fn report(&self, site: &TestSite, batch: &Batch) -> Answer {
        let body = Body::from(batch.encode().unwrap());
        self.client(site).send("POST", "/api/v1/client/states", &STATES, body).await
    }
}

async fn token(admin: &Client, new: Value) -> JoinToken {
    let made = admin.post("/api/v1/client-tokens", new).await.expect(201);
    made.json["token"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn machines_join_with_a_token_that_is_for_many_and_are_refused_once_blocked() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    let image = token(&admin, json!({"name": "image", "uses": 2})).await;
    let (one, two, three) = (Machine::new(1), Machine::new(2), Machine::new(3));
    let joined = one.join(&site, &image).await.expect(200);
    assert_eq!(joined.json["standing"], "approved");
    assert!(joined.json["certificate"].as_str().unwrap().contains("BEGIN CERTIFICATE"));
    // One that did not get the answer asks again, and counts once.
    one.join(&site, &image).await.expect(200);
    two.join(&site, &image).await.expect(200);
    three.join(&site, &image).await.expect(403);
    // Another key is no way to become another's.
    let thief = Machine { request: three.request.clone(), ..Machine::new(1) };
    let more = token(&admin, json!({"name": "more", "uses": 9})).await;
    thief.join(&site, &more).await.expect(409);
    let listed = admin.get("/api/v1/client-tokens").await.expect(200);
    assert!(!String::from_utf8_lossy(&listed.body).contains("secret"));

    let clients = admin.get("/api/v1/clients").await.expect(200).json;
    assert_eq!(clients["items"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&clients["items"][0]["name"], &clients["items"][0]["states"]),
        (&json!("pc-1"), &json!(0))
    );
    let found = admin.get("/api/v1/clients?search=pc-2").await.expect(200).json;
    assert_eq!(found["items"][0]["id"], two.id.to_string());
    admin.get("/api/v1/clients?standing=odd").await.refused(400, "standing");
    admin.get("/api/v1/clients/pc-9").await.refused(404, "client");

    one.client(&site).get("/api/v1/client/policy").await.expect(200);
    site.stranger().get("/api/v1/client/policy").await.expect(403);
    admin.get("/api/v1/client/policy").await.expect(403);
    let blocked = admin.post("/api/v1/clients/pc-1/block", json!({})).await.expect(200).json;
    assert_eq!(blocked["standing"], "blocked");
    let refused = one.client(&site).get("/api/v1/client/policy").await.expect(403);
    assert!(refused.json["detail"].as_str().unwrap().contains("blocked"));
    one.join(&site, &more).await.expect(403);
    admin.post("/api/v1/clients/pc-1/approve", json!({})).await.expect(200);
    one.client(&site).get("/api/v1/client/policy").await.expect(200);
    admin.delete("/api/v1/clients/pc-1").await.expect(200);
    one.client(&site).get("/api/v1/client/policy").await.expect(403);
    admin.delete("/api/v1/client-tokens/more").await.expect(200);
    one.join(&site, &more).await.expect(403);
    admin.delete("/api/v1/client-tokens/more").await.refused(404, "token");
    admin.post("/api/v1/client-tokens", json!({"name": "x", "uses": 0})).await.refused(422, "uses");
    admin.post("/api/v1/client-tokens", json!({"name": ""})).await.refused(422, "name");
}

#[tokio::test]
async fn a_machine_that_waits_for_approval_asks_again_until_somebody_says_yes() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    let kiosks = token(&admin, json!({"name": "kiosks", "uses": 4, "pending": true})).await;
    let machine = Machine::new(1);
    let waits = machine.join(&site, &kiosks).await.expect(202);
    assert_eq!((&waits.json["standing"], waits.header("retry-after")), (&json!("pending"), "60"));
    assert!(waits.json.get("certificate").is_none());
    let pending = admin.get("/api/v1/clients?standing=pending").await.expect(200).json;
    assert_eq!(pending["items"][0]["name"], "pc-1");
    machine.client(&site).get("/api/v1/client/policy").await.expect(403);
    admin.post("/api/v1/clients/pc-1/approve", json!({})).await.expect(200);
    machine.join(&site, &kiosks).await.expect(200);
    machine.client(&site).get("/api/v1/client/policy").await.expect(200);
    // Its certificate is made anew for its own key, and no other.
    let renew = async |request: &str| {
        machine.client(&site).post("/api/v1/client/renew", json!({"request": request})).await
    };
    renew(&machine.request).await.expect(200);
    renew(&Machine::new(2).request).await.expect(409);
}

/// The policy in an answer, checked as a client checks it.
fn opened(site: &TestSite, machine: &Machine, answer: Answer) -> Policy {
    let answer = answer.expect(200);
    let trusted = site.site.content().unwrap().packages.public_key();
    let signed: SignedPolicy = serde_json::from_slice(&answer.body).unwrap();
    let policy = signed.open(&trusted, ClientId(machine.id)).unwrap();
    assert_eq!(answer.header("etag"), format!("\"{}\"", policy.revision));
    policy
}

/// A site, its administrator, and a machine that joined it.
async fn with_machine() -> (TestSite, Client, Machine) {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    let image = token(&admin, json!({"name": "image"})).await;
    let machine = Machine::new(1);
    machine.join(&site, &image).await.expect(200);
    (site, admin, machine)
}

#[tokio::test]
async fn a_policy_is_signed_and_told_again_when_it_is_another() {
    let (site, admin, machine) = with_machine().await;
    let client = machine.client(&site);
    let policy = opened(&site, &machine, client.get("/api/v1/client/policy").await);
    assert_eq!(policy.settings, Settings::default());
    assert!(policy.update_points.is_empty(), "there was no sync yet");
    assert_eq!(policy.fallback.len(), 1);
    let after = &policy.revision;
    client.get(&format!("/api/v1/client/policy?after={after}")).await.expect(204);
    let tag = format!("\"{after}\"");
    let known = [("if-none-match", tag.as_str())];
    client.send("GET", "/api/v1/client/policy", &known, Body::empty()).await.expect(304);
    client.get("/api/v1/client/policy?wait=61").await.refused(400, "wait");
    let waiting = format!("/api/v1/client/policy?after={after}&wait=60");
    let off = json!({"updates_enabled": false});
    let (heard, set) =
        tokio::join!(client.get(&waiting), admin.put("/api/v1/client-settings", off));
    set.expect(200);
    let off = opened(&site, &machine, heard);
    assert!(!off.updates_enabled && !off.settings.updates_enabled);

    // What is set for it alone concerns it alone, and stands above.
    let waiting = format!("/api/v1/client/policy?after={}&wait=60", off.revision);
    let on = json!({"updates_enabled": true, "scan_every": 3600});
    let (heard, set) =
        tokio::join!(client.get(&waiting), admin.put("/api/v1/clients/pc-1/settings", on));
    let set = set.expect(200).json;
    assert_eq!(set["effective"]["scan_every"], 86_400, "less than a day counts as a day");
    assert_eq!(set["site"], json!({"updates_enabled": false}));
    let on = opened(&site, &machine, heard);
    assert!(on.updates_enabled);
    assert_eq!(on.settings.scan_every.as_secs(), 86_400);

    // One that is shut out hears of it while it waits.
    let waiting = format!("/api/v1/client/policy?after={}&wait=60", on.revision);
    let (heard, blocked) =
        tokio::join!(client.get(&waiting), admin.post("/api/v1/clients/pc-1/block", json!({})));
    blocked.expect(200);
    assert!(heard.expect(403).json["detail"].as_str().unwrap().contains("blocked"));
    assert_eq!(site.site.fleet().unwrap().policies.n_waiting(), 0);
}

#[tokio::test]
async fn a_policy_names_the_distribution_points_that_are_near_to_the_client() {
    let (site, admin, machine) = with_machine().await;
    let client = machine.client(&site);
    let far = opened(&site, &machine, client.get("/api/v1/client/policy").await);
    assert_eq!(far.distribution_points.len(), 0, "its address is not known");
    let waiting = format!("/api/v1/client/policy?after={}&wait=60", far.revision);
    let facts = json!({"base": 0, "revision": 1, "addresses": ["192.0.2.17"]});
    let (heard, told) =
        tokio::join!(client.get(&waiting), client.put("/api/v1/client/facts", facts));
    told.expect(200);
    let near = opened(&site, &machine, heard);
    let names: Vec<_> = near.distribution_points.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["site"]);
    // What is set for all is told to all who wait.
    let waiting = format!("/api/v1/client/policy?after={}&wait=60", near.revision);
    let never = async {
        admin.put("/api/v1/locating-rules", json!({"default": null})).await.expect(200);
        site.site.fleet().unwrap().policies.look(&site.site).unwrap();
    };
    let (heard, ()) = tokio::join!(client.get(&waiting), never);
    assert_eq!(opened(&site, &machine, heard).distribution_points.len(), 0);
}

#[tokio::test]
async fn settings_are_within_limits_and_can_be_taken_back() {
    let (_site, admin, _machine) = with_machine().await;
    let set = json!({"poll_every": 1});
    admin.put("/api/v1/client-settings", set).await.refused(422, "poll_every");
    admin.put("/api/v1/client-settings", json!({"odd": 1})).await.refused(422, "odd");
    admin.put("/api/v1/clients/pc-9/settings", json!({})).await.refused(404, "client");
    admin.put("/api/v1/client-settings", json!({"report_every": 1_800})).await.expect(200);
    admin.put("/api/v1/clients/pc-1/settings", json!({"report_every": 60})).await.expect(200);
    let shown = admin.get("/api/v1/clients/pc-1/settings").await.expect(200).json;
    assert_eq!(shown["effective"]["report_every"], 60);
    let cleared = admin.delete("/api/v1/clients/pc-1/settings").await.expect(200).json;
    assert_eq!(
        (&cleared["set"], &cleared["effective"]["report_every"]),
        (&json!({}), &json!(1_800))
    );
    let cleared = admin.delete("/api/v1/client-settings").await.expect(200).json;
    assert_eq!(cleared["effective"]["report_every"], 900);
    let audit = admin.get("/api/v1/audit").await.expect(200).json;
    let said = audit["items"].as_array().unwrap().iter();
    let said: Vec<_> = said.filter_map(|it| it["detail"].as_str()).collect();
    assert!(said.contains(&"report_every=1800"), "{said:?}");
}

#[tokio::test]
async fn what_clients_report_is_summed_up_and_what_is_unknown_has_a_cause() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    let image = token(&admin, json!({"name": "image", "uses": 3})).await;
    let machines = [Machine::new(1), Machine::new(2), Machine::new(3)];
    for machine in &machines {
        machine.join(&site, &image).await.expect(200);
    }
    let [one, two, _silent] = &machines;
    let batch = one.batch(1, &[(10, State::Required), (11, State::Installed)]);
    let answer = one.report(&site, &batch).await.expect(200).json;
    assert_eq!((&answer["answer"], &answer["next"]), (&json!("accepted"), &json!(2)));
    assert_eq!(one.report(&site, &batch).await.expect(200).json["answer"], "duplicate");
    two.report(&site, &two.batch(1, &[(10, State::NotRequired)])).await.expect(200);
    let gap = one.batch(5, &[(10, State::Installed)]);
    let gap = Batch { kind: Kind::Changes, ..gap };
    let answer = one.report(&site, &gap).await.expect(200).json;
    assert_eq!((&answer["answer"], &answer["expected"]), (&json!("gap"), &json!(2)));

    let summary = admin.get("/api/v1/compliance/summary").await.expect(200).json;
    let first = &summary["items"][0];
    assert_eq!(first["update"], Uuid::from_u128(10).to_string());
    let counts = ["required", "installed", "not_required", "unknown"].map(|name| &first[name]);
    assert_eq!(counts, [&json!(1), &json!(0), &json!(1), &json!(1)]);
    let totals = admin.get("/api/v1/compliance/unknown").await.expect(200).json;
    assert_eq!(totals, json!({"clients": 3, "unknown": {"never-scanned": 1}}));
    let why = async || admin.get("/api/v1/compliance/unknown/clients").await.expect(200).json;
    let listed = why().await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&listed["items"][0]["name"], &listed["items"][0]["cause"]),
        (&json!("pc-3"), &json!("never-scanned"))
    );
    // One client's own: what it needs, and what it has.
    let of = async |state: &str| {
        let at = format!("/api/v1/clients/pc-1/updates?state={state}");
        admin.get(&at).await
    };
    let required = of("required").await.expect(200).json;
    assert_eq!(required["items"][0]["update"], Uuid::from_u128(10).to_string());
    assert_eq!(of("installed").await.expect(200).json["items"].as_array().unwrap().len(), 1);
    of("unknown").await.refused(400, "state");

    // Damage is kept and named, and hurts nobody else.
    let mut bytes = one.batch(2, &[(10, State::Installed)]).encode().unwrap();
    let middle = bytes.len() / 2;
    bytes.truncate(middle);
    let send = async |machine: &Machine, bytes: Vec<u8>| {
        let body = Body::from(bytes);
        machine.client(&site).send("POST", "/api/v1/client/states", &STATES, body).await
    };
    send(one, bytes).await.refused(422, "batch");
    let held = admin.get("/api/v1/compliance/quarantine").await.expect(200).json;
    assert_eq!(held["items"][0]["client"], one.id.to_string());
    let totals = admin.get("/api/v1/compliance/unknown").await.expect(200).json;
    assert_eq!(totals["unknown"]["corrupt"], 1);
    let corrupt = why().await["items"][0].clone();
    let (number, reason) = (&held["items"][0]["number"], &held["items"][0]["reason"]);
    let want = format!("batch {number} in quarantine: {}", reason.as_str().unwrap());
    assert_eq!((&corrupt["cause"], &corrupt["detail"]), (&json!("corrupt"), &json!(want)));
    let full = one.batch(2, &[(10, State::Installed)]);
    one.report(&site, &full).await.expect(200);
    let shown = admin.get("/api/v1/clients/pc-1").await.expect(200).json;
    assert_eq!((&shown["states"], shown.get("resync")), (&json!(1), None));
    // Nobody speaks for another.
    let foreign = two.batch(9, &[]).encode().unwrap();
    send(one, foreign).await.refused(422, "batch");
    let none = one.client(&site).post("/api/v1/client/states", json!({})).await;
    none.refused(415, "content-type");
}

#[tokio::test]
async fn facts_are_told_as_changes_and_all_again_where_the_site_has_others() {
    let site = TestSite::new();
    let admin = site.client("admin").await;
    let image = token(&admin, json!({"name": "image"})).await;
    let machine = Machine::new(1);
    machine.join(&site, &image).await.expect(200);
    let tell = async |facts: Value| machine.client(&site).put("/api/v1/client/facts", facts).await;
    let all = json!({
        "base": 0, "revision": 1, "os": "debian", "os_version": "12", "codename": "bookworm",
        "architecture": "x86_64", "addresses": ["192.0.2.17"], "attributes": {"ring": "pilot"}
    });
    assert_eq!(tell(all).await.expect(200).json["revision"], 1);
    let change = json!({"base": 1, "revision": 2, "attributes": {"ring": null, "floor": "3"}});
    assert_eq!(tell(change).await.expect(200).json["revision"], 2);
    tell(json!({"base": 7, "revision": 8})).await.expect(409);
    tell(json!({"base": 2, "revision": 3, "odd": 1})).await.refused(422, "odd");
    let shown = admin.get("/api/v1/clients/pc-1").await.expect(200).json;
    assert_eq!((&shown["os"], &shown["attributes"]), (&json!("debian"), &json!({"floor": "3"})));
    assert!(shown["heard"].is_string(), "it was heard, though it never reported");
    let packages = json!({"kind": "deb", "changed": {
        "openssl": [{"version": "3.0.15-1", "arch": "amd64"}], "vim": [{"version": "2:9", "arch": "amd64"}]
    }});
    tell(json!({"base": 2, "revision": 3, "packages": packages})).await.expect(200);
    let at = "/api/v1/clients/pc-1/packages?search=ssl";
    let found = admin.get(at).await.expect(200).json;
    assert_eq!(
        found["items"],
        json!([{"name": "openssl", "version": "3.0.15-1", "arch": "amd64"}])
    );
}

#[tokio::test]
async fn a_scan_that_failed_is_told_with_what_its_code_means() {
    let (site, admin, machine) = with_machine().await;
    let scan = Scan { age: 5, outcome: ScanOutcome::Failed(1), completed: None, catalogue: 0 };
    let batch = Batch { scan: Some(scan), ..machine.batch(1, &[]) };
    machine.report(&site, &batch).await.expect(200);
    let why = admin.get("/api/v1/compliance/unknown/clients").await.expect(200).json;
    assert_eq!(why["items"][0]["cause"], "scan-failed");
    assert_eq!(why["items"][0]["detail"], "code 1: its update point cannot be reached");
}

#[tokio::test]
async fn a_machine_that_cannot_report_says_why_without_a_certificate() {
    let (site, admin, machine) = with_machine().await;
    let word = |id: Uuid, stage: &str, text: &str| {
        json!({"id": id.to_string(), "name": "pc-1", "stage": stage, "code": "unreachable",
            "text": text, "at": "2026-11-28T12:00:00Z"})
    };
    let path = "/api/v1/client/fallback";
    let stranger = site.stranger();
    stranger.post(path, word(machine.id, "report", "nobody answers")).await.expect(204);
    let unknown = Uuid::from_u128(99);
    stranger.post(path, word(unknown, "join", &"é".repeat(400))).await.expect(204);
    stranger.post(path, word(unknown, "odd", "")).await.refused(422, "stage");
    let long = word(unknown, "join", &"x".repeat(9_000));
    stranger.post(path, long).await.expect(413);
    let listed = admin.get("/api/v1/client-fallback?limit=1").await.expect(200).json;
    assert_eq!(
        (&listed["items"][0]["id"], &listed["items"][0]["known"]),
        (&json!(unknown), &json!(false))
    );
    let next = format!("/api/v1/client-fallback?cursor={}", listed["next"].as_str().unwrap());
    let rest = admin.get(&next).await.expect(200).json;
    assert_eq!(
        (&rest["items"][0]["text"], &rest["items"][0]["known"]),
        (&json!("nobody answers"), &json!(true))
    );
    stranger.get("/api/v1/client-fallback").await.expect(401);
    // Once it is heard, it has nothing to say any more.
    machine.report(&site, &machine.batch(1, &[(10, State::Required)])).await.expect(200);
    let listed = admin.get("/api/v1/client-fallback").await.expect(200).json;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_too_large_or_from_nobody_is_refused_and_named() {
    let (site, admin, machine) = with_machine().await;
    let send = async |bytes: Vec<u8>| {
        let body = Body::from(bytes);
        machine.client(&site).send("POST", "/api/v1/client/states", &STATES, body).await
    };
    send(vec![0; (4 << 20) + 1]).await.refused(413, "body");
    let held = admin.get("/api/v1/compliance/quarantine").await.expect(200).json;
    assert_eq!(held["items"], json!([]), "what is refused unread is not kept");
    let good = machine.batch(1, &[(10, State::Required)]);
    machine.report(&site, &good).await.expect(200);
    let export = admin.get("/api/v1/compliance/states").await.expect(200);
    let page = compliance::forward::Page::decode(&export.body).unwrap();
    let told: Vec<_> = page.states().map(|(client, states)| (client, states.count())).collect();
    assert_eq!(told, [(ClientId(machine.id), 1)]);
    assert!(page.is_last);
    admin.delete("/api/v1/clients/pc-1").await.expect(200);
    let refused = machine.report(&site, &good).await.expect(403);
    assert_eq!(refused.json["type"], "urn:depot:problem:removed-client");
    let foreign = site.stranger();
    foreign.send("POST", "/api/v1/client/states", &STATES, Body::empty()).await.expect(403);
}
