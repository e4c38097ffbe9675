//! `depot sync source …`: the upstreams that updates come from.

use crate::{
    exit::{Doing, Failure},
    output::{Out, confirm, facts, table},
    transport::{Client, Request, path},
    units,
};
use ::sync::openpgp::Keyring;
use api::routes::sync::{ChangeSource, NewSource, OutcomeView, SyncSourceView};
use clap::{Args, Subcommand};
use http::Method;
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The largest keyring that is read, in bytes.
const MAX_KEYRING: u64 = 4 << 20;

/// Commands on sources.
#[derive(Debug, Subcommand)]
pub enum SourceCommand {
    /// Add an upstream
    Add(Box<AddArgs>),
    /// Change a source: what is not given stays, and its updates stay
    Change(Box<ChangeArgs>),
    /// List the sources
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  depot sync source list
  depot sync source list --json | jq -r '.[].name'"
    )]
    List,
    /// Show a source: its settings, and how it stands
    #[command(after_help = "\
Examples:
  depot sync source show debian-security")]
    Show {
        /// Its name
        name: String,
    },
    /// Synchronise a source that was disabled
    #[command(after_help = "\
Examples:
  depot sync source enable debian-security")]
    Enable {
        /// Its name
        name: String,
    },
    /// Synchronise a source no more; its updates stay
    #[command(after_help = "\
Examples:
  depot sync source disable debian-security")]
    Disable {
        /// Its name
        name: String,
    },
    /// Set which source's word counts first, and which is synchronised first
    #[command(after_help = "\
Examples:
  depot sync source priority debian-security 80")]
    Priority {
        /// Its name
        name: String,
        /// From 0 to 100; sources have 50 until it is set
        #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
        priority: u8,
    },
    /// Remove a source, and withdraw its updates
    #[command(
        visible_alias = "rm",
        after_help = "\
Examples:
  depot sync source remove debian-security --yes"
    )]
    Remove {
        /// Its name
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Add an upstream
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot sync source add debian-security --apt http://deb.example/debian-security \\
      --suite bookworm-security --components main --arch amd64 \\
      --keyring /usr/share/keyrings/debian-archive-keyring.gpg \\
      --tracker https://tracker.example/data/DSA/list,https://tracker.example/data/CVE/list
  depot sync source add alma --rpm https://mirror.example/almalinux/9/BaseOS/x86_64/os/ --keyring alma.asc
  depot sync source add hp --sdp https://vendor.example/catalogue.cab --signer 9f86d081…
  depot sync source add inside --sdp ./own.cab --unsigned
  depot sync source add upstream --wsus http://wsus.example:8530/
  depot sync source add microsoft --scan-cab ./wsusscn2.cab --signer 9f86d081…

A keyring is a file of OpenPGP public keys, armored or not; what they did not sign is not taken.")]
#[command(group = clap::ArgGroup::new("upstream").required(true).args(["apt", "rpm", "sdp", "scan_cab", "wsus"]))]
pub struct AddArgs {
    /// What to call it: up to 64 of a-z, 0-9, `.`, `_`, `-`
    name: String,
    /// A Debian archive: the address below which `dists` and `pool` lie
    #[arg(long, value_name = "URL", requires = "suite", requires = "keyring")]
    apt: Option<String>,
    /// An RPM repository: the address below which `repodata` lies
    #[arg(long, value_name = "URL")]
    rpm: Option<String>,
    /// A third-party catalogue in the form of Updates Publisher: a cabinet, or a folder of them
    #[arg(long, value_name = "FILE-OR-URL")]
    sdp: Option<String>,
    /// The offline scan cabinet of Microsoft Update, wsusscn2.cab
    #[arg(long, value_name = "FILE-OR-URL")]
    scan_cab: Option<String>,
    /// A WSUS server, Microsoft Update, or a site that is one (sync.serve_wsus): the root of its services
    #[arg(long, value_name = "URL")]
    wsus: Option<String>,
    /// With --apt: suites, as bookworm-security
    #[arg(long, value_name = "SUITE", value_delimiter = ',', conflicts_with_all = ["rpm", "sdp", "scan_cab", "wsus"])]
    suite: Vec<String>,
    /// With --apt: components, as main
    #[arg(long, value_name = "NAME", value_delimiter = ',', conflicts_with_all = ["rpm", "sdp", "scan_cab", "wsus"])]
    components: Vec<String>,
    /// With --apt: architectures, as amd64
    #[arg(long, value_name = "ARCH", value_delimiter = ',', conflicts_with_all = ["rpm", "sdp", "scan_cab", "wsus"])]
    arch: Vec<String>,
    /// With --apt: lists of the distribution's security tracker, data/DSA/list and data/CVE/list below it;
    /// without them updates have no advisory, severity or CVEs
    #[arg(long, value_name = "URL", value_delimiter = ',', conflicts_with_all = ["rpm", "sdp", "scan_cab", "wsus"])]
    tracker: Vec<String>,
    /// With --apt or --rpm: the keys that may sign
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sdp", "scan_cab", "wsus"])]
    keyring: Option<PathBuf>,
    /// With --rpm: what its packages are for, as almalinux-9 [default: as the repository says]
    #[arg(long, value_name = "PRODUCT", conflicts_with_all = ["apt", "sdp", "scan_cab", "wsus"])]
    product: Option<String>,
    /// With --sdp or --scan-cab: SHA-256 of a certificate that may sign
    #[arg(long, value_name = "SHA256", conflicts_with_all = ["apt", "rpm", "wsus"])]
    signer: Vec<String>,
    /// With --sdp or --scan-cab: SHA-256 of the file itself
    #[arg(long, value_name = "SHA256", conflicts_with_all = ["apt", "rpm", "wsus"])]
    sha256: Option<String>,
    /// Take it though nobody signed it
    #[arg(long, conflicts_with_all = ["apt", "wsus", "keyring", "signer"])]
    unsigned: bool,
    /// When it is synchronised, as "every 4 hours" [default: as `depot sync schedule` says]
    #[arg(long, value_name = "WHEN")]
    schedule: Option<String>,
    /// Which source's word counts first, and which is synchronised first; from 0 to 100
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=100))]
    priority: Option<u8>,
    /// Do not synchronise it yet
    #[arg(long)]
    disabled: bool,
}

/// Change a source
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot sync source change debian-security --keyring new-archive-keyring.gpg
  depot sync source change debian-security --address http://other.example/debian-security
  depot sync source change debian-security --tracker \
      https://tracker.example/data/DSA/list,https://tracker.example/data/CVE/list
  depot sync source change hp --schedule \"every day 03:00\"

Its updates stay. If more than the schedule changes, its next sync asks for everything again.")]
pub struct ChangeArgs {
    /// Its name
    name: String,
    /// Where it is now; `--url` is the server that is asked, as of every command
    #[arg(long, value_name = "FILE-OR-URL")]
    address: Option<String>,
    /// Of a Debian archive: suites, in place of those that it has
    #[arg(long, value_name = "SUITE", value_delimiter = ',')]
    suite: Vec<String>,
    /// Of a Debian archive: components, in place of those that it has
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    components: Vec<String>,
    /// Of a Debian archive: architectures, in place of those that it has
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    arch: Vec<String>,
    /// Of a Debian archive: lists of the security tracker, in place of those that it has
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    tracker: Vec<String>,
    /// The keys that may sign, in place of those that it has
    #[arg(long, value_name = "FILE")]
    keyring: Option<PathBuf>,
    /// Of an RPM repository: what its packages are for
    #[arg(long, value_name = "PRODUCT")]
    product: Option<String>,
    /// When it is synchronised; an empty text: as the site's schedule says
    #[arg(long, value_name = "WHEN")]
    schedule: Option<String>,
}

/// Runs a command on sources.
pub async fn run(command: SourceCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        SourceCommand::Add(args) => add(*args, client, out).await,
        SourceCommand::Change(args) => change(*args, client, out).await,
        SourceCommand::List => list(client, out).await,
        SourceCommand::Show { name } => {
            let source: SyncSourceView = client.get(&address(&name)).await?;
            show(&source, out)
        }
        SourceCommand::Enable { name } => {
            let enabled = ChangeSource { enabled: Some(true), ..ChangeSource::default() };
            let source = changed(&name, &enabled, client).await?;
            out.show(&source, |w| writeln!(w, "{} is synchronised{}", source.name, next(&source)))
        }
        SourceCommand::Disable { name } => {
            let disabled = ChangeSource { enabled: Some(false), ..ChangeSource::default() };
            let source = changed(&name, &disabled, client).await?;
            out.show(&source, |w| writeln!(w, "{} is synchronised no more", source.name))
        }
        SourceCommand::Priority { name, priority } => {
            let change = ChangeSource { priority: Some(priority), ..ChangeSource::default() };
            let source = changed(&name, &change, client).await?;
            out.show(&source, |w| writeln!(w, "{} has priority {}", source.name, source.priority))
        }
        SourceCommand::Remove { name, yes } => {
            let source: SyncSourceView = client.get(&address(&name)).await?;
            let what = format!("this withdraws all updates that only {name} has{}", left(&source));
            confirm(&what, yes)?;
            let gone: SyncSourceView =
                client.ask(Request::new(Method::DELETE, &address(&name))).await?;
            out.show(&gone, |w| writeln!(w, "source {} is removed{}", gone.name, left(&gone)))
        }
    }
}

/// What becomes of the packages that mirror a source that is removed.
fn left(source: &SyncSourceView) -> String {
    match source.mirrored_by.as_slice() {
        [] => String::new(),
        packages => format!(
            "; these packages mirror it, keep their versions and get no new ones: {}",
            packages.join(", ")
        ),
    }
}

fn address(name: &str) -> String {
    path(&["sync", "sources", name])
}

/// The source after a change.
pub async fn changed(
    name: &str,
    change: &ChangeSource,
    client: &Client,
) -> Result<SyncSourceView, Failure> {
    client.ask(Request::new(Method::PATCH, &address(name)).json(change)?).await
}

async fn add(args: AddArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let (kind, settings) = settings(&args, client, out)?;
    let Value::Object(settings) = settings else { unreachable!("settings are objects") };
    let new = NewSource {
        name: args.name,
        kind: kind.into(),
        settings,
        enabled: args.disabled.then_some(false),
        priority: args.priority,
        schedule: args.schedule,
    };
    let source: SyncSourceView = client.post("/sync/sources", &new).await?;
    out.show(&source, |w| {
        writeln!(w, "source {} is added{}", source.name, next(&source))?;
        match out.quiet {
            true => Ok(()),
            false => writeln!(w, "synchronise it now: depot sync run {}", source.name),
        }
    })
}

async fn change(args: ChangeArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let before: SyncSourceView = client.get(&address(&args.name)).await?;
    let mut settings = before.settings.clone();
    // A setting that its kind does not have is refused by the site, which names it.
    let place = if settings.contains_key("base") { "base" } else { "url" };
    let moved = args.address.as_deref().map(|to| file_or_url(to, client)).transpose()?;
    let keyring = args.keyring.as_deref().map(|file| keyring(file, out)).transpose()?;
    let lists = [
        ("suites", args.suite),
        ("components", args.components),
        ("architectures", args.arch),
        ("tracker", args.tracker),
    ];
    let lists = lists.into_iter().filter(|(_, words)| !words.is_empty());
    let words = [(place, moved), ("keyring", keyring), ("product", args.product)];
    let words = words.into_iter().filter_map(|(name, word)| Some((name, json!(word?))));
    for (name, value) in lists.map(|(name, words)| (name, json!(words))).chain(words) {
        settings.insert(name.to_owned(), value);
    }
    let settings = Some(settings).filter(|settings| *settings != before.settings);
    if settings.is_none() && args.schedule.is_none() {
        return Err(Failure::usage("nothing is to be changed: say what"));
    }
    let asked = ChangeSource { settings, schedule: args.schedule, ..ChangeSource::default() };
    let source = changed(&args.name, &asked, client).await?;
    out.show(&source, |w| writeln!(w, "source {} is changed{}", source.name, next(&source)))
}

/// The kind and its settings, as the site takes them.
fn settings(args: &AddArgs, client: &Client, out: Out) -> Result<(&'static str, Value), Failure> {
    let keyring = args.keyring.as_deref().map(|file| keyring(file, out)).transpose()?;
    if let Some(base) = &args.apt {
        if args.arch.is_empty() {
            return Err(Failure::usage("--apt needs --arch: which machines the packages are for"));
        }
        if args.components.is_empty() && !args.suite.iter().all(|suite| suite.ends_with('/')) {
            return Err(Failure::usage("--apt needs --components, as main"));
        }
        let settings = json!({
            "base": base, "suites": args.suite, "components": args.components,
            "architectures": args.arch, "keyring": keyring, "tracker": args.tracker,
        });
        return Ok(("apt", settings));
    }
    if let Some(url) = &args.rpm {
        if keyring.is_none() && !args.unsigned {
            return Err(Failure::usage(
                "--rpm needs --keyring, the keys that may sign, or --unsigned to take it though \
                 nobody did",
            ));
        }
        // Without a keyring nobody looks for a signature.
        let settings = json!({ "url": url, "keyring": keyring, "product": args.product });
        return Ok(("rpm", without_nulls(settings)));
    }
    if let Some(url) = &args.wsus {
        return Ok(("wsus", json!({ "url": url })));
    }
    let (kind, file) = match (&args.sdp, &args.scan_cab) {
        (Some(catalogue), _) => ("sdp", catalogue),
        (None, cabinet) => ("scan-cab", cabinet.as_ref().expect("one of the group is given")),
    };
    if args.signer.is_empty() && args.sha256.is_none() && !args.unsigned {
        return Err(Failure::usage(format!(
            "--{kind} needs --signer, the SHA-256 of a certificate that may sign, or --sha256, that \
             of the file, or --unsigned to take it though nobody vouches for it"
        )));
    }
    let trust = json!({
        "signers": args.signer, "sha256": args.sha256, "unsigned": args.unsigned,
    });
    let settings = json!({ "url": file_or_url(file, client)?, "trust": without_nulls(trust) });
    Ok((kind, settings))
}

fn without_nulls(value: Value) -> Value {
    let fields = value.as_object().into_iter().flatten();
    let fields = fields.filter(|(_, value)| !value.is_null());
    Value::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>())
}

/// A file as one armored keyring.
fn keyring(file: &Path, out: Out) -> Result<String, Failure> {
    let name = file.display();
    let opened = std::fs::File::open(file).doing(|| format!("cannot read {name}"))?;
    let mut bytes = Vec::new();
    let read = opened.take(MAX_KEYRING).read_to_end(&mut bytes);
    read.doing(|| format!("cannot read {name}"))?;
    let (keyring, lost) = Keyring::parse_and_tell(&bytes)
        .map_err(|error| Failure::usage(format!("{name} is no keyring: {error}")))?;
    if let Some(lost) = lost {
        out.note(format!("{name}: {lost}"));
    }
    Ok(keyring.into())
}

/// An address as it is, or that of a file or folder of the site's machine.
fn file_or_url(text: &str, client: &Client) -> Result<String, Failure> {
    if text.contains("://") {
        return Ok(text.to_owned());
    }
    if !client.is_on_this_machine() {
        return Err(Failure::usage(format!(
            "{text:?} would be a file of the server's machine: give its address, as \
             https://… or file:///…"
        )));
    }
    let whole = std::path::absolute(text).doing(|| format!("cannot use {text}"))?;
    if !whole.exists() {
        return Err(Failure::usage(format!("there is no {}", whole.display())));
    }
    let url = reqwest::Url::from_file_path(&whole);
    let url = url.map_err(|()| Failure::usage(format!("{text:?} is no path")))?;
    Ok(url.into())
}

async fn list(client: &Client, out: Out) -> Result<(), Failure> {
    let sources: Vec<SyncSourceView> = client.list("/sync/sources", &[], usize::MAX).await?;
    let rows = sources.iter().map(|source| {
        [
            source.name.clone(),
            source.kind.clone(),
            upstream(source),
            if source.enabled { "yes" } else { "no" }.to_owned(),
            source.priority.to_string(),
            source.schedule.clone().unwrap_or_else(|| "(site)".to_owned()),
        ]
    });
    let columns = ["name", "kind", "upstream", "enabled", ">priority", "schedule"];
    out.show(&sources, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
}

/// Where it is, in few words.
fn upstream(source: &SyncSourceView) -> String {
    let text = |name: &str| source.settings.get(name).and_then(Value::as_str);
    let base = text("base").or(text("url")).unwrap_or_default();
    let suites = source.settings.get("suites").and_then(Value::as_array).into_iter().flatten();
    let suites: Vec<&str> = suites.filter_map(Value::as_str).collect();
    format!("{base} {}", suites.join(" ")).trim_end().to_owned()
}

/// `; next on 2026-11-28 03:00`.
fn next(source: &SyncSourceView) -> String {
    let at = source.next.as_ref().map(|next| units::when(next.at));
    at.map(|at| format!("; next at {at}")).unwrap_or_default()
}

fn show(source: &SyncSourceView, out: Out) -> Result<(), Failure> {
    let mut rows = vec![
        ("source", source.name.clone()),
        ("kind", source.kind.clone()),
        ("enabled", if source.enabled { "yes" } else { "no" }.to_owned()),
        ("priority", source.priority.to_string()),
        ("schedule", source.schedule.clone().unwrap_or_else(|| "as the site's".to_owned())),
        ("made", units::when(source.created)),
    ];
    if !source.mirrored_by.is_empty() {
        rows.push(("mirrored by", source.mirrored_by.join(", ")));
    }
    for (name, value) in &source.settings {
        let text = match value {
            Value::String(text) if text.starts_with("-----BEGIN PGP") => keys_of(text),
            Value::String(text) => text.clone(),
            Value::Array(items) => {
                let items: Vec<String> = items
                    .iter()
                    .map(|item| item.as_str().map_or(item.to_string(), Into::into))
                    .collect();
                items.join(", ")
            }
            other => other.to_string(),
        };
        rows.push((name, text));
    }
    if let Some(succeeded) = source.succeeded {
        rows.push(("succeeded", units::when(succeeded)));
    }
    if let Some(last) = &source.last {
        let detail = last.detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
        rows.push(("last sync", format!("{}{detail}", outcome_name(last.outcome))));
    }
    rows.push(("state", super::run::state(source)));
    if let Some(next) = &source.next {
        rows.push(("next", units::when(next.at)));
    }
    out.show(source, |w| w.write_all(facts(&rows).as_bytes()))
}

/// The fingerprints of a keyring's keys.
fn keys_of(armored: &str) -> String {
    let Ok(keyring) = Keyring::parse(armored.as_bytes()) else { return "unreadable".to_owned() };
    keyring.fingerprints().collect::<Vec<_>>().join(" ")
}

/// The word for what a sync came to.
pub fn outcome_name(outcome: OutcomeView) -> &'static str {
    match outcome {
        OutcomeView::Done => "done",
        OutcomeView::Unchanged => "unchanged",
        OutcomeView::Failed => "failed",
        OutcomeView::Cancelled => "cancelled",
        OutcomeView::Interrupted => "interrupted",
    }
}
