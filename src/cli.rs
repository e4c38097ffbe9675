//! The command tree: every word that can be typed, its help and its examples.
//!
//! Each family of commands lives in a file of its own, with its flags beside what they do; this
//! file joins them and holds what all of them share: where to work and how to print.

use crate::{
    agent::AgentCommand,
    audit::AuditArgs,
    backup::BackupCommand,
    boundary::BoundaryCommand,
    boundary_group::BoundaryGroupCommand,
    client::ClientCommand,
    collection::CollectionCommand,
    completions::CompletionsArgs,
    compliance::ComplianceCommand,
    config::ConfigCommand,
    content::ContentCommand,
    content_status::ContentStatusArgs,
    database::DatabaseCommand,
    deployment::{DeploymentCommand, deploy::DeployArgs},
    deployment_package::DeploymentPackageCommand,
    distribute::{DistributeArgs, UndistributeArgs},
    dp::{DpCommand, order::RedistributeArgs},
    fetch::FetchArgs,
    fleet::FleetCommand,
    group::GroupCommand,
    job::JobCommand,
    library::LibraryCommand,
    lifecycle::LifecycleCommand,
    locate::LocateArgs,
    package::PackageCommand,
    prestage::PrestageCommand,
    rule::RuleCommand,
    serve::ServeArgs,
    site::SiteCommand,
    staging::StagingCommand,
    status_messages::StatusMessagesCommand,
    sup::SupCommand,
    sync::SyncCommand,
    token::TokenCommand,
    update::UpdateCommand,
};
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::{ffi::OsString, path::PathBuf};

const AFTER_HELP: &str = "\
Examples:
  depot serve --data ./depot-data                        start a site on 127.0.0.1:8520
  depot package create docs --source /usr/share/doc      a package; version 1 is empty
  depot package update docs                              reads the source; version 2
  depot fetch http://127.0.0.1:8520/packages/docs/latest -o ./out
  depot --data ./depot-data package list                 the same commands without a server

Where a command works:
  --data DIR       the folder itself, opened in this process; no server may be using it
  --url URL        a server; else DEPOT_URL; else http://127.0.0.1:8520
  --token-file F   the file that holds the server's token; else DEPOT_TOKEN_FILE; with neither a
                   URL nor a file given, ./depot-data/admin.token if it is there

Exit codes:
  0  done                         4  conflict, or in use by somebody else
  1  failed                       5  damaged content found
  2  wrong command line or value  130  interrupted
  3  not found

Errors are one line on stderr. With --json, stdout holds JSON and nothing else; only
`config example`, `completions` and `content get` without -o print the file that they are for.";

/// Content library and distribution points: store once, deliver what changed.
#[derive(Debug, Parser)]
#[command(name = "depot", version, after_help = AFTER_HELP, max_term_width = 100)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    /// Where to work and how to print.
    #[command(flatten)]
    pub shared: Shared,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command understands.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Shared options")]
pub struct Shared {
    /// Work on this data folder in this process, without a server
    #[arg(long, global = true, value_name = "DIR", conflicts_with_all = ["url", "token_file"])]
    pub data: Option<PathBuf>,
    /// Server to speak to [env: DEPOT_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// File that holds the server's token [env: DEPOT_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificates in PEM to believe a server by that is asked over HTTPS, and no others: of its authority,
    /// or as `depot site authority` prints it [env: DEPOT_CA]
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Print JSON for scripts
    #[arg(long, global = true)]
    pub json: bool,
    /// Print results and errors only: no notes, no progress
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Log what happens inside, to stderr; twice for more
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The first word.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Named, versioned trees of files: create, update, push, list, restore, delete
    #[command(
        subcommand,
        visible_alias = "pkg",
        after_help = "\
Examples:
  depot package create docs --source /usr/share/doc
  depot package update docs
  depot package list"
    )]
    Package(PackageCommand),
    /// Bring a package version from a server into a folder, moving only what changed
    Fetch(FetchArgs),
    /// Single contents by digest: show, get, verify, why
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot content show blake3:…
  depot content why blake3:…"
    )]
    Content(ContentCommand),
    /// The content library as a whole: stats, verify, gc, rebuild-index, repair, volume
    #[command(
        subcommand,
        visible_alias = "lib",
        after_help = "\
Examples:
  depot library stats
  depot library verify"
    )]
    Library(LibraryCommand),
    /// Distribution points: join-token, list, show, remove, group, limit, window, drain, validate, serve
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot dp join-token create --name branch-7
  depot dp list"
    )]
    Dp(DpCommand),
    /// Bring a package to distribution points, and keep it there
    Distribute(DistributeArgs),
    /// Let distribution points drop a package
    Undistribute(UndistributeArgs),
    /// Have distribution points check a package and bring what they lack of it, now
    Redistribute(RedistributeArgs),
    /// How far what is distributed is, on each distribution point
    ContentStatus(ContentStatusArgs),
    /// Which addresses belong to which boundary groups: add, change, list, remove, test
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot boundary add 10.7.0.0/16 --group paris
  depot boundary test 10.7.3.4"
    )]
    Boundary(BoundaryCommand),
    /// Which distribution points are near to which clients: create, add, neighbour, default, list
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot boundary-group create paris --point branch-7
  depot boundary-group neighbour set paris lyon --after 20m"
    )]
    BoundaryGroup(BoundaryGroupCommand),
    /// Say whom a client should ask for a package, and why
    Locate(LocateArgs),
    /// Versions that travel on a medium: inventory, export, import
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot prestage inventory --data /var/lib/depot -o inv      # on the distribution point
  depot prestage export docs --base inv -o bundle            # on the site
  depot prestage import bundle --data /var/lib/depot         # on the distribution point"
    )]
    Prestage(PrestageCommand),
    /// Where updates come from, and bringing what is new: source, criteria, schedule, run, status, history
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot sync source add debian-security --apt http://deb.example/debian-security \\
      --suite bookworm-security --components main --arch amd64 --keyring archive.gpg
  depot sync run --watch
  depot sync status"
    )]
    Sync(SyncCommand),
    /// The catalogue of updates: list, show, products, download, author, withdraw, export
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot update list --classification security --released-within 30d
  depot update show DSA-5545-1
  depot update download DSA-5545-1 --package november
  depot update author tool.toml --publish
  depot update withdraw 'Tool 2.1'
  depot update export 'Tool 2.1' -o tool.sdp"
    )]
    Update(UpdateCommand),
    /// When updates expire and go: show, set, preview
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot lifecycle preview
  depot lifecycle set --supersedence 3"
    )]
    Lifecycle(LifecycleCommand),
    /// What administrators are told, by number: list
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot status-messages list --id 6703
  depot status-messages list --severity warning"
    )]
    StatusMessages(StatusMessagesCommand),
    /// The update points of a site besides its own: add, list, show, remove, replace-source
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot sup add sup-2 --output sup-2.token
  depot sup list"
    )]
    Sup(SupCommand),
    /// The machines of the fleet: list, show, approve, block, remove, join-token, settings, fallback
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot client join-token create --name office-image --uses 500 --output office.token
  depot client list --standing pending
  depot client settings set --updates-enabled false"
    )]
    Client(ClientCommand),
    /// This machine as a client of a site: run, install, scan, status, trigger, report, explain
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot agent install --site https://site.example:8520 --join-file office.token
  depot agent status
  depot agent explain DSA-5545-1"
    )]
    Agent(AgentCommand),
    /// A fleet that is not there, to see what a site bears: simulate
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot fleet simulate --clients 1000 --duration 5m --join-file load.token"
    )]
    Fleet(FleetCommand),
    /// Sets of clients: create, list, show, change, rules, members, maintenance windows
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot collection create web --rule 'package in (nginx, apache2)'
  depot collection members web
  depot collection window add web nights --start 2026-11-28T01:00 --length 3h --every 'weekly sat'
  depot compliance summary --collection web"
    )]
    Collection(CollectionCommand),
    /// Sets of updates that are deployed together: create, add, remove, list, show, delete
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot group create november --filter 'classification in (security, critical) and required > 50'
  depot group show november"
    )]
    Group(GroupCommand),
    /// Packages that hold files of updates: create, download, list, show, remove-updates, delete
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot deployment-package create november --language en,de
  depot deployment-package download november --group november"
    )]
    DeploymentPackage(DeploymentPackageCommand),
    /// Deploy a group of updates to a collection of machines
    Deploy(Box<DeployArgs>),
    /// What is deployed to whom, and what comes of it: list, show, status, devices, enable, change, delete
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot deployment list
  depot deployment change november-pilot --deadline '+3d 03:00'"
    )]
    Deployment(DeploymentCommand),
    /// What is deployed by itself: create, preview, run, enable, disable, history, add-deployment, go, hold
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot rule create patch-day --template monthly --package patch-day --collection pilot --deadline 2d
  depot rule preview patch-day
  depot rule history patch-day"
    )]
    Rule(RuleCommand),
    /// Which deployment packages are brought to which distribution points: plan
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot staging plan --explain"
    )]
    Staging(StagingCommand),
    /// Which updates clients need, and where that is not known: summary, devices, unknown, trend
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot compliance summary
  depot compliance devices DSA-5545-1 --state required
  depot compliance unknown"
    )]
    Compliance(ComplianceCommand),
    /// Long operations: list, show, watch, cancel
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot job list
  depot job watch 0199f0c2a7b1e0d3"
    )]
    Job(JobCommand),
    /// Access tokens: create, list, revoke
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot token create ci --role operator --output ci.token
  depot token list"
    )]
    Token(TokenCommand),
    /// Who did what
    Audit(AuditArgs),
    /// Start a site: admin API and distribution point on one address
    Serve(ServeArgs),
    /// The site itself, and the tree it is in: show, children, join-token, authority, new-key
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot site show
  depot site join-token create --name berlin --kind primary
  depot --data ./depot-data site new-key"
    )]
    Site(SiteCommand),
    /// Where the site database is, in the data folder or on a PostgreSQL server: migrate
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot --data ./depot-data database migrate --to postgres://depot@db.example/site"
    )]
    Database(DatabaseCommand),
    /// Backups of the site, made while it is used: create, list, verify, restore
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot backup create /srv/backups --with-content --passphrase-file /etc/depot/backup.passphrase
  depot backup verify /srv/backups
  depot backup restore /srv/backups --data ./new --passphrase-file /etc/depot/backup.passphrase"
    )]
    Backup(BackupCommand),
    /// The configuration file: check, show, example
    #[command(
        subcommand,
        after_help = "\
Examples:
  depot config example > depot.toml
  depot config check"
    )]
    Config(ConfigCommand),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the version
    #[command(after_help = "\
Examples:
  depot version
  depot version --json | jq -r .version")]
    Version,
}

/// What clap says of a wrong command line, in several paragraphs, as one line: what is wrong, the
/// tip if there is one, and whose help to read. `args` are the words after `depot`.
pub fn in_one_line(text: &str, args: impl Iterator<Item = OsString>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for paragraph in text.split("\n\n") {
        let words = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        let beside = ["Usage: ", "For more information"];
        if !words.is_empty() && !beside.iter().any(|start| words.starts_with(start)) {
            parts.push(in_words(words.trim_start_matches("error: ")));
        }
    }
    format!("{}; see `{} --help`", parts.join("; "), command_of(args))
}

/// A value's error with what the standard library says of numbers put in words.
fn in_words(text: &str) -> String {
    let said = text.rsplit_once(": ").map(|(value, said)| (value, api::number_in_words(said)));
    match said {
        Some((value, Some(words))) => format!("{value}: {words}"),
        _ => text.to_owned(),
    }
}

/// The command that `args` name, as far as they name one.
fn command_of(args: impl Iterator<Item = OsString>) -> String {
    let tree = Cli::command();
    let mut command = &tree;
    let mut path = tree.get_name().to_owned();
    for word in args {
        if let Some(sub) = command.find_subcommand(word) {
            path = format!("{path} {}", sub.get_name());
            command = sub;
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(args: &[&str]) -> String {
        let error = Cli::try_parse_from(args).expect_err("wrong");
        in_one_line(&error.render().to_string(), args[1..].iter().map(OsString::from))
    }

    #[test]
    fn a_wrong_command_line_is_one_line_with_the_help_to_read() {
        let line = said(&["depot", "package", "create"]);
        assert_eq!(
            line,
            "the following required arguments were not provided: <NAME>; see `depot package \
             create --help`"
        );
        let line = said(&["depot", "pakage"]);
        assert!(line.contains("'pakage'") && line.contains("similar"), "{line}");
        let line = said(&["depot", "content", "show", "blake3:00"]);
        assert!(line.contains("digest") && !line.contains('\n'), "{line}");
        assert!(line.ends_with("; see `depot content show --help`"), "{line}");
    }

    #[test]
    fn a_wrong_number_is_told_in_words() {
        assert_eq!(
            said(&["depot", "--data", "x", "pkg", "create", "y", "--keep", "0"]),
            "invalid value '0' for '--keep <N>': must be 1 or more; see `depot package create --help`"
        );
        assert_eq!(
            said(&["depot", "audit", "--limit", "few"]),
            "invalid value 'few' for '--limit <N>': must be a whole number, 0 or more; see `depot \
             audit --help`"
        );
    }

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    /// clap lets the option of a command silently take the value of a global one of the same id.
    #[test]
    fn no_option_of_a_command_is_named_as_one_that_all_share() {
        fn check(command: &clap::Command, shared: &[&str], path: &str) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                for arg in sub.get_arguments() {
                    assert!(!shared.contains(&arg.get_id().as_str()), "{path}: {}", arg.get_id());
                }
                check(sub, shared, &path);
            }
        }
        let tree = Cli::command();
        let shared = tree.get_arguments().filter(|arg| arg.is_global_set());
        let shared: Vec<&str> = shared.map(|arg| arg.get_id().as_str()).collect();
        assert!(shared.contains(&"url") && shared.contains(&"json"), "{shared:?}");
        check(&tree, &shared, "depot");
    }

    #[test]
    fn every_command_has_examples() {
        fn check(command: &clap::Command, path: &str) {
            for sub in command.get_subcommands() {
                check(sub, &format!("{path} {}", sub.get_name()));
            }
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let words = path.trim_start_matches("depot");
            assert!(help.contains(words), "{path} shows no example of itself");
        }
        check(&Cli::command(), "depot");
    }
}
