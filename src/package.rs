//! `depot package …`: named, versioned trees of files.
//!
//! This file holds the commands that are one request and one table; those with work of their own
//! (update, push, restore, tree, diff) live in files beside it.

mod diff;
mod listed;
mod mirror;
mod push;
mod restore;
mod revoke;
mod tree;
pub mod update;

use crate::{
    exit::Failure,
    output::{Out, confirm, facts, table},
    transport::{Client, Request, path, with_query},
    units,
};
use api::views::{
    ChannelMovedView, DeletedView, PackageView, RetentionView, SourceView, VersionView,
};
use clap::{Args, Subcommand};
use http::Method;
use std::{collections::BTreeMap, num::NonZeroU32, path::PathBuf};

/// Commands on packages.
#[derive(Debug, Subcommand)]
pub enum PackageCommand {
    /// Make a package; its version 1 is empty
    Create(CreateArgs),
    /// Take a package's source, a folder or an upstream, and make a new version if anything changed
    Update(update::UpdateArgs),
    /// Send a local folder to a package as its next version; only missing chunks travel
    Push(push::PushArgs),
    /// List packages
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show one package, or one version of it
    Show(ShowArgs),
    /// List the versions of a package
    Versions(VersionsArgs),
    /// List the files of a version
    Tree(tree::TreeArgs),
    /// Show what differs between two versions
    Diff(diff::DiffArgs),
    /// Write a version's files into a folder
    Restore(restore::RestoreArgs),
    /// Move, list or remove a package's named pointers to versions
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot package channel set docs stable 3
  depot package channel list docs"
    )]
    Channel(ChannelCommand),
    /// Set how many versions are kept, and for how long
    Retain(RetainArgs),
    /// Delete a package, or one version of it
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
    /// Forbid a digest in every package: it is neither served nor accepted again
    Revoke(revoke::RevokeArgs),
}

/// Make a package
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot package create docs --source /usr/share/doc
  depot package create tools                     # no source: filled by `depot package push`
  depot package create debian-security --mirror debian-security --keep 10
  depot package create web --mirror debian-security --only 'nginx*,openssl,libssl3' --newest-only
  depot package create editor --mirror debian --only vim --newest-only --with-dependencies
  depot package create web --mirror debian-security --only-installed-on web --with-dependencies
  depot package create debian --mirror debian --on-demand

The source is a folder of the machine that holds the library: with --url that is the server.
To send files from another machine, use `depot package push`.

With --mirror, each `depot package update` makes a version that is a whole repository, as the last sync
of that source found it. With nothing else it is all of it, signed by its upstream. A choice has
metadata of its own, signed by the site: `depot site openpgp-key` prints the key for machines.

With --on-demand a version is as complete, but each of its packages comes from the upstream when the
first machine asks for it, and is served from here from then on. What the upstream has deleted by then
cannot come: a version that must stay installable for ever is made without it.")]
pub struct CreateArgs {
    /// Its name: up to 64 of a-z, 0-9, `.`, `_`, `-`
    name: String,
    /// Folder that updates read; kept as an absolute path
    #[arg(long, value_name = "DIR", conflicts_with = "mirror")]
    source: Option<PathBuf>,
    /// How many versions are kept [default: as the site's settings say]
    #[arg(long, value_name = "N")]
    keep: Option<NonZeroU32>,
    #[command(flatten)]
    mirror: mirror::MirrorArgs,
}

/// List packages
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot package list
  depot package list --json | jq -r '.[].name'")]
pub struct ListArgs {}

/// Show one package, or one version of it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot package show docs
  depot package show docs@3
  depot package show docs@stable --json")]
pub struct ShowArgs {
    /// NAME, NAME@VERSION or NAME@CHANNEL
    #[arg(value_name = "NAME[@VERSION]")]
    package: Selected,
}

/// List the versions of a package
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot package versions docs
  depot package versions docs --json")]
pub struct VersionsArgs {
    /// Name of the package
    name: String,
}

/// Commands on channels.
#[derive(Debug, Subcommand)]
pub enum ChannelCommand {
    /// Point a channel at a version, making the channel if it is new
    #[command(after_help = "\
Examples:
  depot package channel set docs stable 3
  depot package channel set docs test latest")]
    Set {
        /// Name of the package
        name: String,
        /// Name of the channel, for example stable or test
        channel: String,
        /// A version, `latest`, or another channel
        version: String,
    },
    /// List a package's channels
    #[command(after_help = "\
Examples:
  depot package channel list docs")]
    List {
        /// Name of the package
        name: String,
    },
    /// Remove a channel; the version it points at stays
    #[command(after_help = "\
Examples:
  depot package channel remove docs test")]
    Remove {
        /// Name of the package
        name: String,
        /// Name of the channel
        channel: String,
    },
}

/// Set how many versions are kept, and for how long
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot package retain docs                      # shows the rule
  depot package retain docs --keep 10
  depot package retain docs --keep 3 --days 90   # and those replaced 90 days ago go too

The newest version and versions that a channel points to always stay. How many are kept is looked
at with each new version, their age also every hour by a site that serves.")]
pub struct RetainArgs {
    /// Name of the package
    name: String,
    /// The newest so many versions stay
    #[arg(long, value_name = "N")]
    keep: Option<NonZeroU32>,
    /// Of those, versions that were replaced more days ago go as well; 0 for no such limit
    #[arg(long, value_name = "DAYS")]
    days: Option<u32>,
}

/// Delete a package, or one version of it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot package delete docs@2
  depot package delete docs --yes                # with all its versions

Space is freed by the next garbage collection after the grace time; the answer says how much.")]
pub struct DeleteArgs {
    /// NAME or NAME@VERSION
    #[arg(value_name = "NAME[@VERSION]")]
    package: Selected,
    /// Delete a version even if `latest` or a channel points to it; such channels are removed
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// A package, and perhaps which version of it: `docs`, `docs@3`, `docs@stable`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The package's name.
    pub name: String,
    /// A version number, a channel, or `latest`.
    pub version: Option<String>,
}

impl std::str::FromStr for Selected {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        if name.is_empty() || version == Some("") {
            return Err("want NAME, NAME@VERSION or NAME@CHANNEL".to_owned());
        }
        Ok(Self { name: name.to_owned(), version: version.map(str::to_owned) })
    }
}

impl Selected {
    /// The version asked for, `latest` if none was.
    pub fn version_or_latest(&self) -> &str {
        self.version.as_deref().unwrap_or("latest")
    }
}

/// Runs a command on packages.
pub async fn run(command: PackageCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        PackageCommand::Create(args) => create(args, client, out).await,
        PackageCommand::Update(args) => update::run(args, client, out).await,
        PackageCommand::Push(args) => push::run(args, client, out).await,
        PackageCommand::List(_) => list(client, out).await,
        PackageCommand::Show(args) => show(&args.package, client, out).await,
        PackageCommand::Versions(args) => versions(&args.name, client, out).await,
        PackageCommand::Tree(args) => tree::run(args, client, out).await,
        PackageCommand::Diff(args) => diff::run(args, client, out).await,
        PackageCommand::Restore(args) => restore::run(args, client, out).await,
        PackageCommand::Channel(command) => channel(command, client, out).await,
        PackageCommand::Retain(args) => retain(args, client, out).await,
        PackageCommand::Delete(args) => delete(args, client, out).await,
        PackageCommand::Revoke(args) => revoke::run(args, client, out).await,
    }
}

async fn create(args: CreateArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let source =
        args.source.map(|folder| update::source_text("--source", folder, client)).transpose()?;
    let mirror = args.mirror.mirror()?;
    let new = serde_json::json!({
        "name": args.name, "source": source, "keep": args.keep, "mirror": mirror,
    });
    let version: VersionView = client.post("/packages", &new).await.map_err(mirror::in_options)?;
    out.show(&version, |w| {
        writeln!(w, "package {} made; version {} is empty", version.package, version.version)?;
        match (&source, &mirror) {
            // It is told beside the result, which is all that is wanted.
            _ if out.quiet => Ok(()),
            (Some(_), _) | (_, Some(_)) => {
                writeln!(w, "fill it: depot package update {}", version.package)
            }
            (None, None) => writeln!(w, "fill it: depot package push {} FOLDER", version.package),
        }
    })
}

async fn list(client: &Client, out: Out) -> Result<(), Failure> {
    let packages: Vec<PackageView> = client.list("/packages", &[], usize::MAX).await?;
    let rows = packages.iter().map(|package| {
        let latest = package.latest.as_ref();
        [
            package.name.to_string(),
            latest.map(|v| v.version.to_string()).unwrap_or_default(),
            units::count(latest.map_or(0, |v| v.n_files)),
            units::bytes(latest.map_or(0, |v| v.bytes)),
            units::count(package.n_versions),
            latest.map(|v| units::when(v.created)).unwrap_or_default(),
            channels_text(package),
            source_of(package),
        ]
    });
    let columns =
        ["name", ">latest", ">files", ">size", ">versions", "changed", "channels", "source"];
    out.show(&packages, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
}

fn channels_text(package: &PackageView) -> String {
    let each = package.channels.iter().map(|(name, version)| format!("{name}={version}"));
    each.collect::<Vec<_>>().join(" ")
}

fn source_of(package: &PackageView) -> String {
    match &package.source {
        SourceView::Folder(folder) => folder.clone(),
        SourceView::Upload => "(uploads)".to_owned(),
        SourceView::Composed => match &package.mirror {
            Some(mirror) => mirror::text(mirror),
            None => "(upstream)".to_owned(),
        },
    }
}

async fn show(selected: &Selected, client: &Client, out: Out) -> Result<(), Failure> {
    if let Some(version) = &selected.version {
        let address = path(&["packages", &selected.name, "versions", version]);
        let version: VersionView = client.get(&address).await?;
        return out.show(&version, |w| w.write_all(facts(&version_facts(&version)).as_bytes()));
    }
    let package: PackageView = client.get(&path(&["packages", &selected.name])).await?;
    let mut rows = vec![
        ("package", package.name.to_string()),
        ("source", source_of(&package)),
        ("keeps", retention_text(&package.retention)),
        ("versions", units::count(package.n_versions)),
        ("channels", channels_text(&package)),
        ("made", units::when(package.created)),
    ];
    if let Some(latest) = &package.latest {
        rows.push(("", String::new()));
        rows.extend(version_facts(latest).into_iter().skip(1));
    }
    out.show(&package, |w| w.write_all(facts(&rows).as_bytes()))
}

fn version_facts(version: &VersionView) -> Vec<(&'static str, String)> {
    vec![
        ("package", version.package.to_string()),
        ("version", version.version.to_string()),
        ("files", units::count(version.n_files)),
        ("folders", units::count(version.n_folders)),
        ("links", units::count(version.n_links)),
        ("size", units::bytes(version.bytes)),
        ("new then", units::bytes(version.new_bytes)),
        ("created", units::when(version.created)),
        ("manifest", version.manifest.to_string()),
        ("tree", version.tree.clone()),
        ("key", version.key.clone()),
        ("signature", version.signature.clone()),
    ]
}

async fn versions(name: &str, client: &Client, out: Out) -> Result<(), Failure> {
    let address = path(&["packages", name, "versions"]);
    let versions: Vec<VersionView> = client.list(&address, &[], usize::MAX).await?;
    let rows = versions.iter().map(|version| {
        [
            version.version.to_string(),
            units::when(version.created),
            units::count(version.n_files),
            units::bytes(version.bytes),
            units::bytes(version.new_bytes),
            version.manifest.to_string(),
        ]
    });
    let columns = [">version", "created", ">files", ">size", ">new", "manifest"];
    out.show(&versions, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
}

async fn channel(command: ChannelCommand, client: &Client, out: Out) -> Result<(), Failure> {
    match command {
        ChannelCommand::Set { name, channel, version } => {
            let address = path(&["packages", &name, "channels", &channel]);
            let to = serde_json::json!({ "version": version });
            let moved: ChannelMovedView = client.put(&address, &to).await?;
            out.show(&moved, |w| {
                let ChannelMovedView { package, channel, to, .. } = &moved;
                match moved.from {
                    Some(from) => {
                        writeln!(
                            w,
                            "{channel} of {package} points to version {to}, before to {from}"
                        )
                    }
                    None => writeln!(w, "{channel} of {package} is new and points to version {to}"),
                }
            })
        }
        ChannelCommand::List { name } => {
            let address = path(&["packages", &name, "channels"]);
            let channels: BTreeMap<String, u64> = client.get(&address).await?;
            let rows = channels.iter().map(|(name, version)| [name.clone(), version.to_string()]);
            let text = table(["channel", ">version"], rows.collect());
            out.show(&channels, |w| w.write_all(text.as_bytes()))
        }
        ChannelCommand::Remove { name, channel } => {
            let address = path(&["packages", &name, "channels", &channel]);
            client.send(Request::new(Method::DELETE, &address)).await?;
            let gone = serde_json::json!({ "package": name, "channel": channel, "removed": true });
            out.show(&gone, |w| writeln!(w, "channel {channel} of {name} is removed"))
        }
    }
}

async fn retain(args: RetainArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let package: PackageView = client.get(&path(&["packages", &args.name])).await?;
    let mut rule = package.retention;
    if args.keep.is_some() || args.days.is_some() {
        rule.keep = args.keep.unwrap_or(rule.keep);
        if let Some(days) = args.days {
            rule.days = NonZeroU32::new(days);
        }
        rule = client.put(&path(&["packages", &args.name, "retention"]), &rule).await?;
    }
    out.show(&rule, |w| writeln!(w, "{} keeps {}", args.name, retention_text(&rule)))
}

fn retention_text(rule: &RetentionView) -> String {
    let keep = units::counted(u64::from(rule.keep.get()), "version", "versions");
    match rule.days {
        Some(days) => {
            let days = units::counted(u64::from(days.get()), "day", "days");
            format!("{keep}, none that was replaced more than {days} ago")
        }
        None => keep,
    }
}

async fn delete(args: DeleteArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let name = &args.package.name;
    let address = match &args.package.version {
        Some(version) => {
            confirm(&format!("this deletes version {version} of package {name}"), args.yes)?;
            let address = path(&["packages", name, "versions", version]);
            with_query(address, &[("force", args.force.then_some("true"))])
        }
        None => {
            confirm(&format!("this deletes package {name} with all its versions"), args.yes)?;
            path(&["packages", name])
        }
    };
    let gone: DeletedView = client.ask(Request::new(Method::DELETE, &address)).await?;
    out.show(&gone, |w| {
        let versions: Vec<String> = gone.versions.iter().map(u64::to_string).collect();
        writeln!(w, "deleted {} version {}", gone.package, versions.join(", "))?;
        let when = units::when(gone.freed_at);
        match gone.freed {
            Some(freed) => writeln!(
                w,
                "frees up to {} in {}, with the first `depot library gc` after {when}",
                units::bytes(freed.bytes),
                units::counted(freed.contents, "content", "contents"),
            ),
            None => writeln!(w, "what that frees is not known: a manifest is damaged"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_stands_behind_an_at_sign() {
        let selected = |name: &str, version: Option<&str>| Selected {
            name: name.into(),
            version: version.map(str::to_owned),
        };
        assert_eq!("docs".parse(), Ok(selected("docs", None)));
        assert_eq!("docs@3".parse(), Ok(selected("docs", Some("3"))));
        for bad in ["", "@3", "docs@"] {
            assert!(bad.parse::<Selected>().is_err(), "{bad}");
        }
    }
}
