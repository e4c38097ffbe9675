//! Deployments on a machine, over real processes: a Debian system whose own apt and dpkg install the updates, the content
//! coming from distribution points; whatever ends, breaks off or is away in between.
//!
//! Each test has a system that debootstrap made ([`support::debian`]). Skipped, with a word, where that cannot be.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../sync/tests/rpm/made.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod made;
mod support;

use deployment::policy::{
    DeployedFile, DeployedItem, DeployedUpdate, DeployedUpdates, DeploymentId, DeploymentPolicy,
    Experience, When,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use support::{
    Site,
    agent::{Agent, Machine, devices, join_token, until_catalogue},
    archive::Archive,
    debian::{bootstrap, can_run, run},
    noise, temp_folder, until,
    web::Web,
};
use sync::update::{CodeResult, Handler, PackageFile, ReturnCode};
use uuid::Uuid;

/// A site with an update `tool 2.0-1`, which depends on the new package `helper`, and a machine with `tool 1.0-1`.
struct Scene {
    agent: Option<Agent>,
    machine: Machine,
    site: Site,
    archive: Archive,
    folder: tempfile::TempDir,
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Before the folders: it writes there.
        drop(self.agent.take());
    }
}

impl Scene {
    /// What `tool 2.0-1` has as its script after the installation.
    fn new(postinst: &str) -> Option<Self> {
        let main = can_run()?;
        let folder = temp_folder();
        let data = folder.path().join("pc-17");
        let machine = Machine { root: folder.path().join("root"), data };
        bootstrap(&main, &machine.root);
        fs::write(machine.root.join("etc/machine-id"), "0123\n").unwrap();
        fs::write(machine.root.join("etc/hostname"), "pc-17\n").unwrap();
        let mut archive = Archive::new();
        package(&archive, "tool", "1.0-1", "", "");
        run("dpkg", &["--root", &path(&machine.root), "-i", &deb(&archive, "tool", "1.0-1")]);
        fs::remove_file(deb(&archive, "tool", "1.0-1")).unwrap();
        run("chroot", &[&path(&machine.root), "apt-mark", "auto", "tool"]);
        package(&archive, "tool", "2.0-1", "Depends: helper (>= 1)\n", postinst);
        package(&archive, "helper", "1.0-1", "", "");
        archive.publish();
        let site = Site::start(&folder.path().join("site"));
        archive.add_to(&site, "security", &archive.web.url).ok();
        site.depot(["sync", "run", "--watch"]).ok();
        until_catalogue(&site, 2);
        site.depot(["update", "download", "--package", "nov", "tool 2.0-1", "helper 1.0-1"]).ok();
        let token = join_token(&site, "pc-17", &[]);
        let agent = machine.start(&["--join-file", token.to_str().unwrap()]);
        agent.until_enabled();
        agent.json(&["scan", "--force"]);
        agent.kill();
        Some(Self { agent: None, machine, site, archive, folder })
    }

    fn root(&self) -> String {
        path(&self.machine.root)
    }

    fn version(&self, package: &str) -> String {
        let query = ["--root", &self.root(), "-f=${Version} ${db:Status-Status}", "-W", package];
        let said = Command::new("dpkg-query").args(query).output().unwrap();
        String::from_utf8(said.stdout).unwrap()
    }

    /// An update as a document has it.
    fn update(&self, package: &str, version: &str) -> DeployedUpdate {
        let file = PathBuf::from(deb(&self.archive, package, version));
        let mut update = deployed(&self.site, package, version, &file, "amd64");
        update.items[0].handler = Some(Handler::Apt);
        update
    }

    fn both(&self) -> DeployedUpdates {
        document(vec![self.update("tool", "2.0-1"), self.update("helper", "1.0-1")])
    }

    fn deploy(
        &self,
        updates: &DeployedUpdates,
        experience: Experience,
        change: impl FnOnce(&mut Value, &mut DeploymentPolicy),
    ) {
        deploy(&self.site, &self.machine.data, updates, experience, change);
    }

    fn start(&mut self, args: &[&str]) -> &Agent {
        self.agent = Some(self.machine.start(args));
        let agent = self.agent.as_ref().unwrap();
        until("the agent answers", || agent.status().is_some());
        agent
    }

    fn kill(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.kill();
        }
    }

    /// The one deployment, as the agent tells of it.
    fn listed(&self) -> Value {
        let agent = self.agent.as_ref().unwrap();
        let run = agent.depot(&["deployments", "--json"]);
        if run.code == Some(0) { run.json()[0].clone() } else { Value::Null }
    }

    #[track_caller]
    fn until_state(&self, state: &str) {
        let mut last = Value::Null;
        let mut came = false;
        for _ in 0..1_200 {
            last = self.listed();
            if last["enforcement"] == state {
                came = true;
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(came, "want {state}, and it is {last:#}\n{}", self.machine.log());
    }

    fn log_of(&self, package: &str) -> String {
        let id = self.update(package, "2.0-1").id;
        fs::read_to_string(self.machine.data.join(format!("installs/{id}.log"))).unwrap()
    }

    /// How often the script after the installation of `tool` ran to its end.
    fn installed_times(&self) -> usize {
        let said = fs::read_to_string(self.machine.root.join("var/lib/tool.done"));
        said.unwrap_or_default().lines().count()
    }
}

/// Has the site's policy say that these are deployed. The site signs it, as far as the agent can tell: its revision stays
/// the same, so the site does not send its own.
fn deploy(
    site: &Site,
    data: &Path,
    updates: &DeployedUpdates,
    experience: Experience,
    change: impl FnOnce(&mut Value, &mut DeploymentPolicy),
) {
    let (bytes, digest) = updates.document();
    fs::write(data.join(format!("deployed/{digest}.json")), &bytes).unwrap();
    let mut deployment = DeploymentPolicy {
        id: DeploymentId(Uuid::from_u128(7)),
        name: "November".into(),
        available: When::Utc(Timestamp::UNIX_EPOCH),
        deadline: Some(When::Utc(Timestamp::UNIX_EPOCH)),
        experience,
        updates: digest,
        updates_size: bytes.len() as u64,
    };
    let file = data.join("policy.json");
    let mut signed: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let mut policy: Value = serde_json::from_str(signed["policy"].as_str().unwrap()).unwrap();
    policy["distribution_points"] = json!([{ "name": "site", "url": site.url }]);
    policy["settings"]["report_after_install"] = 10.into();
    change(&mut policy, &mut deployment);
    policy["deployments"] = json!([deployment]);
    let text = policy.to_string();
    let key = packager::SiteKey::open(&site.data.join("keys/site.ed25519")).unwrap();
    let kind = packager::sign::Document::ClientPolicy;
    signed["signature"] = json!(key.sign_document(kind, text.as_bytes()));
    signed["policy"] = text.into();
    fs::write(&file, signed.to_string()).unwrap();
}

/// A package of an update as its document has it.
fn deployed(site: &Site, name: &str, version: &str, file: &Path, arch: &str) -> DeployedUpdate {
    let list = site.depot(["update", "list", "--search", name, "--json"]).ok().json();
    let called = |it: &&Value| {
        let it = it["name"].as_str().unwrap();
        it.starts_with(name) && it.contains(version)
    };
    let found = list.as_array().unwrap().iter().find(called).unwrap_or_else(|| panic!("{list}"));
    let bytes = fs::read(file).unwrap();
    let package = PackageFile { name: name.into(), version: version.into(), arch: arch.into() };
    let file = DeployedFile {
        name: file.file_name().unwrap().to_str().unwrap().to_owned(),
        size: bytes.len() as u64,
        digest: Some(blake3::hash(&bytes).to_hex().to_string()),
        language: None,
        package: Some(package),
    };
    DeployedUpdate {
        id: found["id"].as_str().unwrap().parse().unwrap(),
        revision: 1,
        name: found["name"].as_str().unwrap().to_owned(),
        title: name.into(),
        behaviour: Default::default(),
        parts: Default::default(),
        items: vec![DeployedItem { files: vec![file], ..DeployedItem::default() }],
    }
}

/// A document of these.
fn document(mut updates: Vec<DeployedUpdate>) -> DeployedUpdates {
    updates.sort_by_key(|it| it.id);
    DeployedUpdates { updates }
}

/// Builds a package with a configuration file into the archive's pool.
fn package(archive: &Archive, name: &str, version: &str, lines: &str, postinst: &str) {
    let built = temp_folder();
    let file = |name: &str, text: &[u8]| {
        let path = built.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: A <a@example.org>\n\
         {lines}Description: the {name} program\n Made for a test.\n"
    );
    file("DEBIAN/control", control.as_bytes());
    file("DEBIAN/conffiles", format!("/etc/{name}.conf\n").as_bytes());
    let script = format!("#!/bin/sh\nset -e\n{postinst}\necho {version} >> /var/lib/{name}.done\n");
    file("DEBIAN/postinst", script.as_bytes());
    run("chmod", &["755", built.path().join("DEBIAN/postinst").to_str().unwrap()]);
    file(&format!("etc/{name}.conf"), format!("from {version}\n").as_bytes());
    let seed = name.bytes().chain(version.bytes()).map(u64::from).sum();
    file(&format!("usr/share/{name}/data"), &noise(seed, 3_000_000));
    let to = deb(archive, name, version);
    run("dpkg-deb", &["--root-owner-group", "-b", built.path().to_str().unwrap(), &to]);
}

fn deb(archive: &Archive, name: &str, version: &str) -> String {
    path(&archive.folder.path().join(Archive::deb(name, version)))
}

fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_update_is_installed_with_what_it_depends_on_and_what_people_changed_stays() {
    let Some(mut scene) = Scene::new("") else { return };
    fs::write(scene.machine.root.join("etc/tool.conf"), "from me\n").unwrap();
    let documents = scene.both();
    scene.deploy(&documents, Experience::default(), |_, _| {});
    scene.start(&[]);
    scene.until_state("succeeded");
    assert_eq!(scene.version("tool"), "2.0-1 installed");
    assert_eq!(scene.version("helper"), "1.0-1 installed");
    let conf = fs::read_to_string(scene.machine.root.join("etc/tool.conf")).unwrap();
    assert_eq!(conf, "from me\n");
    let marked = run("chroot", &[&scene.root(), "apt-mark", "showauto", "tool", "helper"]);
    assert_eq!(marked, "helper\ntool\n", "both are there since something needs them");
    let listed = scene.listed();
    assert_eq!(
        (&listed["compliance"], &listed["evaluation"]),
        (&json!("compliant"), &json!("succeeded"))
    );
    let states: Vec<&Value> =
        listed["updates"].as_array().unwrap().iter().map(|it| &it["state"]).collect();
    assert!(states.iter().all(|it| *it == "installed"), "{listed}");
    let table = scene.agent.as_ref().unwrap().depot(&["deployments"]).ok().stdout;
    let id = scene.update("tool", "2.0-1").id.to_string();
    assert!(table.contains("tool 2.0-1  installed") && !table.contains(&id), "{table}");
    assert!(scene.log_of("tool").contains("Setting up tool (2.0-1)"));
    assert!(!scene.machine.root.join("var/cache/depot-agent").read_dir().unwrap().any(|_| true));
    until("the site knows it", || devices(&scene.site, "tool 2.0-1", "installed") == ["pc-17"]);
    // Somebody puts the old one back: an evaluation finds that, and it comes from the cache.
    package(&scene.archive, "tool", "1.0-1", "", "");
    let old = deb(&scene.archive, "tool", "1.0-1");
    run("dpkg", &["--root", &scene.root(), "--force-downgrade", "--force-confold", "-i", &old]);
    let agent = scene.agent.as_ref().unwrap();
    agent.json(&["trigger", "deployment-evaluation"]);
    until("it is installed again", || scene.version("tool") == "2.0-1 installed");
    let status = scene.agent.as_ref().unwrap().depot(&["status"]).ok().stdout;
    assert!(status.contains("November"), "{status}");
}

#[test]
fn a_group_that_the_site_deploys_is_installed_and_what_it_deploys_no_more_is_forgotten() {
    let Some(mut scene) = Scene::new("") else { return };
    scene.start(&[]);
    let site = |args: &[&str]| scene.site.depot(args).ok();
    site(&["collection", "create", "pilot"]);
    site(&["collection", "add", "pilot", "pc-17"]);
    site(&["group", "create", "november", "tool 2.0-1", "helper 1.0-1"]);
    // Else it takes up to two minutes until the site knows what was installed.
    site(&["client", "settings", "set", "--report-after-install", "10s"]);
    let deploy =
        ["deploy", "november", "--collection", "pilot", "--deadline", "now", "--no-spread"];
    site(&deploy);
    scene.until_state("succeeded");
    assert_eq!(scene.version("tool"), "2.0-1 installed");
    assert_eq!(scene.version("helper"), "1.0-1 installed");
    until("the site knows it", || devices(&scene.site, "tool 2.0-1", "installed") == ["pc-17"]);
    let agent = scene.agent.as_ref().unwrap();
    until("the site hears how far it is", || {
        let told = fs::read(scene.machine.data.join("state.json")).unwrap();
        let told: Value = serde_json::from_slice(&told).unwrap();
        told["deploy"]["told"] != "" && agent.json(&["status"])["report_trouble"].is_null()
    });
    site(&["deployment", "delete", "november-pilot", "--yes"]);
    until("it is forgotten", || agent.json(&["deployments"]) == json!([]));
    until("its document goes", || {
        scene.machine.data.join("deployed").read_dir().unwrap().next().is_none()
    });
}

#[test]
fn an_agent_that_is_killed_at_each_step_goes_on_and_installs_once() {
    let Some(mut scene) = Scene::new("sleep 3") else { return };
    let documents = scene.both();
    scene.deploy(&documents, Experience::default(), |_, _| {});
    // Ended after ever longer times: in mid-scan, mid-download, mid-installation. An installation that is interrupted
    // too often is given up, so an evaluation is asked for, which begins anew.
    for n in 1..14_u64 {
        scene.agent = Some(scene.machine.start(&[]));
        std::thread::sleep(Duration::from_millis(150 * n));
        scene.kill();
    }
    scene.start(&[]).json(&["trigger", "deployment-evaluation"]);
    scene.until_state("succeeded");
    assert_eq!(scene.version("tool"), "2.0-1 installed");
    assert_eq!(scene.installed_times(), 2, "once each version");
}

#[test]
fn after_a_power_cut_in_mid_installation_dpkg_is_repaired_and_the_update_installed() {
    // It never ends the first time.
    let Some(mut scene) =
        Scene::new("[ -e /var/lib/tool.begun ] || { touch /var/lib/tool.begun; sleep 1000; }")
    else {
        return;
    };
    let documents = scene.both();
    scene.deploy(&documents, Experience::default(), |_, _| {});
    scene.start(&[]);
    let begun = scene.machine.root.join("var/lib/tool.begun");
    until("the installation is at work", || begun.exists());
    // The power fails: whatever runs ends, and nothing is told.
    let pid = fs::read_to_string(scene.machine.data.join("install.pid")).unwrap();
    scene.kill();
    let group = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    // apt gives dpkg a group of its own.
    until("nothing is at work in the root", || {
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let of_root = fs::read_link(process.path().join("root"));
            let name = process.file_name().into_string().unwrap_or_default();
            let own = of_root.is_ok_and(|it| it == scene.machine.root);
            if let Some(pid) =
                name.parse().ok().and_then(rustix::process::Pid::from_raw).filter(|_| own)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                return false;
            }
        }
        true
    });
    assert_ne!(scene.version("tool"), "2.0-1 installed");
    scene.start(&[]);
    scene.until_state("succeeded");
    assert_eq!(scene.version("tool"), "2.0-1 installed");
    run("chroot", &[&scene.root(), "dpkg", "--audit"]);
}

#[test]
fn a_point_that_vanishes_in_mid_download_is_followed_by_the_next_where_it_was() {
    use support::relay::{Line, Pace};
    let Some(mut scene) = Scene::new("") else { return };
    let (first, second) = (Line::to(&scene.site.url), Line::to(&scene.site.url));
    first.set(Pace::CutAt(1_000_000));
    let points = json!([
        { "name": "first", "url": format!("http://{}", first.address) },
        { "name": "second", "url": format!("http://{}", second.address) },
    ]);
    let documents = scene.both();
    scene.deploy(&documents, Experience::default(), |policy, _| {
        policy["distribution_points"] = points;
    });
    scene.start(&[]);
    scene.until_state("succeeded");
    assert_eq!(scene.version("tool"), "2.0-1 installed");
    assert!(first.passed() >= 900_000, "{}", first.passed());
    // Both packages, less what came before.
    let whole =
        documents.updates.iter().flat_map(|it| &it.items[0].files).map(|it| it.size).sum::<u64>();
    assert!(second.passed() < whole - 500_000, "{} of {whole}", second.passed());
}

/// A script after an installation that asks for a restart.
const ASKS: &str =
    "mkdir -p /run && touch /run/reboot-required && echo tool >> /run/reboot-required.pkgs";

#[test]
fn an_update_that_asks_for_a_restart_awaits_it_though_apt_fails_for_another_packages_sake() {
    let Some(mut scene) = Scene::new(ASKS) else { return };
    package(&scene.archive, "broken", "1.0-1", "", "exit 7");
    let broken = deb(&scene.archive, "broken", "1.0-1");
    let words = ["--root", &scene.root(), "-i", &broken];
    assert!(!Command::new("dpkg").args(words).output().unwrap().status.success());
    let mut suppressed = Experience::default();
    suppressed.suppress_restart.servers = true;
    scene.deploy(&scene.both(), suppressed, |_, _| {});
    scene.start(&[]);
    scene.until_state("pending-restart");
    assert_eq!(scene.version("tool"), "2.0-1 installed");
    assert_eq!(scene.listed()["compliance"], "non-compliant");
    let log = scene.machine.log();
    let why =
        "installed broken package post-installation script subprocess returned error exit status 7";
    assert!(log.contains(&format!("code: 100, detail: \"{why}\\n")), "{log}");
}

#[test]
fn a_restart_follows_and_the_scan_after_it_says_that_the_update_is_installed() {
    let Some(mut scene) = Scene::new(ASKS) else { return };
    // What a start of the machine is known by, and a restart that makes it another.
    let boot = scene.machine.root.join("proc/sys/kernel/random");
    fs::create_dir_all(&boot).unwrap();
    fs::write(boot.join("boot_id"), "first\n").unwrap();
    let script = scene.folder.path().join("restart");
    let root = scene.root();
    let text = format!(
        "#!/bin/sh\nrm -f {root}/run/reboot-required*\necho second > {root}/proc/sys/kernel/random/boot_id\n"
    );
    fs::write(&script, text).unwrap();
    run("chmod", &["755", script.to_str().unwrap()]);
    let documents = scene.both();
    let mut suppressed = Experience::default();
    suppressed.suppress_restart.servers = true;
    scene.deploy(&documents, suppressed, |_, _| {});
    let restart = ["--restart-command", script.to_str().unwrap()];
    scene.start(&restart);
    scene.until_state("pending-restart");
    assert_eq!(scene.listed()["compliance"], "non-compliant");
    scene.kill();
    assert_eq!(fs::read_to_string(boot.join("boot_id")).unwrap(), "first\n");
    // Not suppressed: it comes.
    scene.deploy(&documents, Experience::default(), |_, _| {});
    scene.start(&restart);
    until("the machine restarts", || {
        fs::read_to_string(boot.join("boot_id")).unwrap() == "second\n"
    });
    scene.kill();
    scene.start(&restart);
    scene.until_state("succeeded");
    // In the log, for another scan may have followed: a machine's first by its schedule comes at any time within hours.
    let log = scene.machine.log();
    assert!(log.contains("started_by=\"a restart that an update awaited\""), "{log}");
    until("the site knows it", || devices(&scene.site, "tool 2.0-1", "installed") == ["pc-17"]);
}

/// The agent on its own machine, as it sees one: a root that it cannot see beyond.
#[test]
fn a_newer_kernel_calls_for_a_restart_and_programs_with_old_libraries_are_told() {
    let Some(mut scene) = Scene::new(
        "r=$(uname -r); touch \"/boot/vmlinuz-99.0-${r##*-}\"; \
         cp /usr/lib/libold.so /usr/lib/libnew.so; mv /usr/lib/libnew.so /usr/lib/libold.so",
    ) else {
        return;
    };
    let documents = scene.both();
    let mut suppressed = Experience::default();
    suppressed.suppress_restart.servers = true;
    scene.deploy(&documents, suppressed, |_, _| {});
    let (root, outer) = (scene.machine.root.clone(), scene.machine.data.clone());
    run(
        "chroot",
        &[&path(&root), "sh", "-c", "cp -L /lib/*-linux-gnu/libm.so.6 /usr/lib/libold.so"],
    );
    fs::copy(support::DEPOT, root.join("opt/depot")).unwrap();
    scene.machine.data = root.join("opt/agent");
    run("cp", &["-a", &path(&outer), &path(&scene.machine.data)]);
    // With a program that runs and uses the library, in the same view of the file system.
    let script = "mount --rbind /proc \"$0/proc\" && \
        { chroot \"$0\" sh -c 'echo $$ > /opt/pid; LD_PRELOAD=/usr/lib/libold.so exec sleep 600' & } && \
        exec chroot \"$0\" /opt/depot agent run --data /opt/agent --root / --restart-command /bin/true";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(&root);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    scene.agent = Some(scene.machine.start_by(command));
    let _ends = Ends(root.join("opt/pid"));
    scene.until_state("pending-restart");
    assert_eq!(scene.version("tool"), "2.0-1 installed");
    assert!(scene.log_of("tool").contains("still use a library that was replaced: sleep"));
}

/// A process whose id a file has; ended when dropped.
struct Ends(PathBuf);

impl Drop for Ends {
    fn drop(&mut self) {
        let pid = fs::read_to_string(&self.0).ok().and_then(|it| it.trim().parse().ok());
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

#[test]
fn an_optional_deployment_waits_for_the_user_and_a_script_says_by_its_code_what_came_of_it() {
    let Some(mut scene) = Scene::new("") else { return };
    let mut update = scene.update("tool", "2.0-1");
    let packages: Vec<DeployedFile> =
        scene.both().updates.into_iter().flat_map(|it| it.items).flat_map(|it| it.files).collect();
    let script = b"#!/bin/sh\necho \"called with $1\"\ndpkg -i *.deb && exit 3\nexit 1\n";
    let digest = blake3::hash(script).to_hex().to_string();
    fs::write(scene.machine.data.join("cache").join(&digest), script).unwrap();
    let file = DeployedFile {
        name: "setup.sh".into(),
        size: script.len() as u64,
        digest: Some(digest),
        ..DeployedFile::default()
    };
    update.items[0].handler = Some(Handler::CommandLine {
        program: "/bin/sh".into(),
        arguments: "-c 'cd /var/cache/depot-agent/* && ./setup.sh quietly'".into(),
        default_result: CodeResult::Failed,
        restart_by_default: false,
        codes: vec![ReturnCode { code: 3, result: CodeResult::Succeeded, restart: false }],
    });
    update.items[0].files = packages.into_iter().chain([file]).collect();
    let documents = DeployedUpdates { updates: vec![update] };
    scene.deploy(&documents, Experience::default(), |_, it| it.deadline = None);
    scene.start(&[]);
    until("it is evaluated", || scene.listed()["evaluation"] == "succeeded");
    let agent = scene.agent.as_ref().unwrap();
    let table = agent.depot(&["deployments"]).ok().stdout;
    assert!(table.contains("optional") && table.contains("waits for `user-install`"), "{table}");
    assert!(agent.depot(&["user-install", "December"]).fails(3).contains("December"));
    assert!(agent.depot(&["snooze"]).fails(1).contains("no restart is announced"));
    agent.depot(&["user-install", "november"]).ok();
    scene.until_state("succeeded");
    assert_eq!(scene.version("tool"), "2.0-1 installed");
    assert!(scene.log_of("tool").contains("called with quietly"));
}

#[test]
fn below_a_write_filter_it_is_committed_and_else_told_to_be_lost_with_the_restart() {
    let Some(mut scene) = Scene::new("") else { return };
    // The system, read-only, below an overlay.
    let (lower, root) = (scene.folder.path().join("lower"), scene.machine.root.clone());
    let upper = scene.folder.path().join("upper");
    let overlay = Overlay { lower: lower.clone(), root: root.clone(), upper: upper.clone() };
    overlay.begin();
    let documents = scene.both();
    let in_overlay = Experience { commit: false, ..Experience::default() };
    scene.deploy(&documents, in_overlay, |_, _| {});
    scene.start(&[]);
    scene.until_state("succeeded");
    assert_eq!(scene.version("tool"), "2.0-1 installed");
    let below = || {
        let status = fs::read_to_string(lower.join("var/lib/dpkg/status")).unwrap();
        let mut stanzas = status.split("\n\n");
        stanzas.any(|it| it.starts_with("Package: tool\n") && it.contains("\nVersion: 2.0-1\n"))
    };
    assert!(!below(), "nothing below was changed");
    scene.kill();
    overlay.restart("second");
    assert_eq!(scene.version("tool"), "1.0-1 installed", "it was lost");
    // Committed: it lies below, and shows after the next restart.
    let boot = overlay.root.join("proc/sys/kernel/random/boot_id");
    let restart = scene.folder.path().join("restart");
    fs::write(&restart, format!("#!/bin/sh\ntouch {}\n", path(&scene.folder.path().join("asked"))))
        .unwrap();
    run("chmod", &["755", restart.to_str().unwrap()]);
    scene.deploy(&documents, Experience::default(), |_, _| {});
    scene.start(&["--restart-command", restart.to_str().unwrap()]);
    let asked = scene.folder.path().join("asked");
    until("a restart is asked for", || asked.exists());
    assert!(below());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let of_lower = mounts.lines().find(|it| it.contains(&format!(" {} ", path(&lower)))).unwrap();
    assert!(of_lower.contains(" ro,"), "the filter is on again: {of_lower}");
    scene.kill();
    overlay.restart("third");
    assert_eq!(scene.version("tool"), "2.0-1 installed", "{}", boot.display());
    scene.start(&[]);
    scene.until_state("succeeded");
}

#[test]
fn rpm_packages_are_installed_by_dnf_with_what_they_depend_on() {
    let folder = temp_folder();
    let made = made::Made::new();
    let old = made.package("tool", "1.0-1", "");
    let new = made.package("tool", "2.0-1", "Requires: helper >= 1");
    let helper = made.package("helper", "1.0-1", "");
    made.index(None);
    let web = Web::of(&made.path());
    let site = Site::start(&folder.path().join("site"));
    site.depot(["sync", "source", "add", "alma", "--rpm", &web.url, "--unsigned"]).ok();
    site.depot(["sync", "run", "--watch"]).ok();
    until("the site makes the catalogue for clients", || {
        site.get("/api/v1/catalogue").status == 200
    });
    let updates = document(vec![
        deployed(&site, "tool", "2.0", &new, "noarch"),
        deployed(&site, "helper", "1.0", &helper, "noarch"),
    ]);
    let ids = updates.updates.iter().map(|it| it.id.to_string());
    let download = ["update", "download", "--package", "nov"].map(str::to_owned);
    site.depot(download.into_iter().chain(ids)).ok();
    let rpm = made::Machine::with(&[old]);
    for folder in ["etc", "var/lib"] {
        fs::create_dir_all(rpm.path(folder)).unwrap();
    }
    // Where rpm itself has it on the systems that it is made for; Debian's keeps it in a home.
    if rpm.path("root/.rpmdb").exists() {
        fs::rename(rpm.path("root/.rpmdb"), rpm.path("var/lib/rpm")).unwrap();
        std::os::unix::fs::symlink("../var/lib/rpm", rpm.path("root/.rpmdb")).unwrap();
    }
    fs::write(rpm.path("etc/os-release"), "ID=almalinux\nVERSION_ID=\"9.4\"\n").unwrap();
    fs::write(rpm.path("etc/hostname"), "pc-18\n").unwrap();
    let machine = Machine { root: rpm.path(""), data: folder.path().join("pc-18") };
    let token = join_token(&site, "pc-18", &[]);
    let agent = machine.start(&["--join-file", token.to_str().unwrap()]);
    agent.until_enabled();
    let scanned = agent.json(&["scan", "--force"]);
    assert_eq!(scanned["counts"]["required"], 1, "{scanned}");
    agent.kill();
    deploy(&site, &machine.data, &updates, Experience::default(), |_, _| {});
    let agent = machine.start(&[]);
    until("dnf installed it", || {
        rpm.installed().get("tool").is_some_and(|it| it[0].contains("2.0"))
    });
    assert!(rpm.installed().contains_key("helper"));
    until("the scan says so", || {
        agent.depot(&["deployments", "--json"]).json()[0]["enforcement"] == "succeeded"
    });
    until("the site knows it", || {
        let name = &updates.updates.iter().find(|it| it.title == "tool").unwrap().name;
        devices(&site, name, "installed") == ["pc-18"]
    });
}

/// A root that is an overlay; unmounted when dropped.
struct Overlay {
    lower: PathBuf,
    upper: PathBuf,
    root: PathBuf,
}

impl Overlay {
    /// Moves the system below the overlay.
    fn begin(&self) {
        fs::create_dir(&self.lower).unwrap();
        // overlayfs takes no other overlay for its upper part, so both are of memory.
        run("mount", &["-t", "tmpfs", "-o", "size=1g", "lower", &path(&self.lower)]);
        run("cp", &["-a", &format!("{}/.", path(&self.root)), &path(&self.lower)]);
        run("mount", &["-o", "remount,ro", &path(&self.lower)]);
        fs::create_dir(&self.upper).unwrap();
        self.mount();
        self.boot("first");
    }

    fn mount(&self) {
        run("mount", &["-t", "tmpfs", "-o", "size=500m", "upper", &path(&self.upper)]);
        let (upper, work) = (self.upper.join("upper"), self.upper.join("work"));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            path(&self.lower),
            path(&upper),
            path(&work)
        );
        run("mount", &["-t", "overlay", "-o", &options, "overlay", &path(&self.root)]);
    }

    fn boot(&self, id: &str) {
        let folder = self.root.join("proc/sys/kernel/random");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("boot_id"), format!("{id}\n")).unwrap();
    }

    /// What a restart does: the upper part is empty again.
    fn restart(&self, id: &str) {
        run("umount", &[&path(&self.root)]);
        run("umount", &[&path(&self.upper)]);
        self.mount();
        self.boot(id);
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        for at in [&self.root, &self.upper, &self.lower] {
            let _ = Command::new("umount").args(["-l", &path(at)]).output();
        }
    }
}
