//! `depot deployment-package …`: packages that hold files of updates.

use crate::{
    exit::Failure,
    group::named,
    job::{self, Ended},
    output::{Out, confirm, facts, table},
    package::update,
    transport::{Client, Request, path, with_query},
    units,
    update::download::{bring, rate},
};
use api::routes::deployments::{
    DeploymentPackageView, DownloadToPackage, NewDeploymentPackage, RemoveFromPackage,
};
use api::views::UpdateView;
use clap::{Args, Subcommand};
use http::Method;
use std::num::NonZeroU64;
use std::path::PathBuf;

/// Commands on deployment packages.
#[derive(Debug, Subcommand)]
pub enum DeploymentPackageCommand {
    /// Make a deployment package; version 1 is empty
    Create(CreateArgs),
    /// Bring files of updates into a deployment package
    Download(DownloadArgs),
    /// List deployment packages
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  depot deployment-package list"
    )]
    List,
    /// Show a deployment package
    #[command(after_help = "\
Examples:
  depot deployment-package show november")]
    Show {
        /// The package
        package: String,
    },
    /// Delete a deployment package
    #[command(after_help = "\
Examples:
  depot deployment-package delete november --yes

Machines get its updates from any other package that holds them. One that alone holds an update of an enabled
deployment is deleted only with --force: machines cannot get that update then.")]
    Delete {
        /// The package
        package: String,
        /// Though machines could not get updates any more that are deployed
        #[arg(long)]
        force: bool,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
    /// Take files of updates out of a deployment package: its next version does not have them
    #[command(after_help = "\
Examples:
  depot deployment-package remove-updates november DSA-5545-1")]
    RemoveUpdates {
        /// The package
        package: String,
        /// Updates, by id, name or article; `-` reads them from stdin, one a line
        #[arg(required = true, value_name = "UPDATE")]
        updates: Vec<String>,
        /// Take them out though machines can get updates that are deployed from no other package
        #[arg(long)]
        force: bool,
    },
}

/// A deployment package to be made.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot deployment-package create november --description 'Patch day'
  depot deployment-package create november --language en,de --source /srv/updates/november

A package that is named where updates are downloaded is made by itself; this one can have more said of it. With a
source folder, which no other package may use, files that lie there are not downloaded, and others are written
there.")]
pub struct CreateArgs {
    /// Its name: up to 50 of a-z, 0-9, `.`, `_`, `-`
    package: String,
    /// What it is for, in up to 127 characters
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    /// Of files that are for one language alone, bring those for these [default: all]
    #[arg(long, value_name = "LANGUAGE", value_delimiter = ',')]
    language: Vec<String>,
    /// A folder of the machine that holds the library, for the files
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
}

/// What is brought.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot deployment-package download november --group november
  depot deployment-package download november DSA-5545-1 DSA-5546-1
  depot deployment-package download november --group november --from-folder /media/stick

What the library holds already, by whatever package, is not downloaded again. A file that cannot be had is
named, the others come; the exit code is 1 then, and the same command again brings what is left.")]
pub struct DownloadArgs {
    /// The package
    package: String,
    /// Updates, by id, name or article; `-` reads them from stdin, one a line
    #[arg(value_name = "UPDATE", required_unless_present = "group")]
    updates: Vec<String>,
    /// The updates of this group
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Take the files from this folder of the machine that holds the library
    #[arg(long, value_name = "DIR")]
    from_folder: Option<PathBuf>,
    /// How much comes in a second at most: 20Mbit, 10MB/s
    #[arg(long, value_name = "RATE", value_parser = rate)]
    rate: Option<NonZeroU64>,
    /// Print the job's id and leave it running
    #[arg(long)]
    detach: bool,
}

/// Runs a command on deployment packages.
pub async fn run(
    command: DeploymentPackageCommand,
    client: &Client,
    out: Out,
) -> Result<(), Failure> {
    match command {
        DeploymentPackageCommand::Create(args) => {
            let source = args.source;
            let source =
                source.map(|dir| update::source_text("--source", dir, client)).transpose()?;
            let new = NewDeploymentPackage {
                name: args.package,
                description: args.description,
                languages: args.language,
                source,
            };
            let made: DeploymentPackageView = client.post("/deployment-packages", &new).await?;
            out.show(&made, |w| {
                writeln!(w, "deployment package {} is made: version {}", made.name, made.version)
            })
        }
        DeploymentPackageCommand::Download(args) => download(args, client, out).await,
        DeploymentPackageCommand::List => {
            let all: Vec<DeploymentPackageView> =
                client.list("/deployment-packages", &[], usize::MAX).await?;
            let rows = all.iter().map(|it| {
                [
                    it.name.clone(),
                    units::count(it.version),
                    units::count(it.updates),
                    units::count(it.files),
                    units::bytes(it.bytes),
                    it.languages.join(" "),
                    it.description.clone(),
                ]
            });
            let columns =
                ["name", ">version", ">updates", ">files", ">size", "languages", "description"];
            out.show(&all, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
        }
        DeploymentPackageCommand::Show { package } => {
            let found: DeploymentPackageView =
                client.get(&path(&["deployment-packages", &package])).await?;
            out.show(&found, |w| w.write_all(shown(&found).as_bytes()))
        }
        DeploymentPackageCommand::Delete { package, force, yes } => {
            confirm(&format!("this deletes deployment package {package}"), yes)?;
            let at = path(&["deployment-packages", &package]);
            let at = with_query(at, &[("force", force.then_some("true"))]);
            let gone: DeploymentPackageView = client.ask(Request::new(Method::DELETE, &at)).await?;
            out.show(&gone, |w| writeln!(w, "deployment package {} is deleted", gone.name))
        }
        DeploymentPackageCommand::RemoveUpdates { package, updates, force } => {
            let remove = RemoveFromPackage { updates: named(updates)?, force };
            let at = path(&["deployment-packages", &package, "remove"]);
            let request = Request::new(Method::POST, &at).json(&remove)?;
            match job::start::<UpdateView>(client, request, out, false).await? {
                Ended::Detached => Ok(()),
                Ended::Done { result, progress } => {
                    out.show(&result, |w| update::people(w, &result, &progress))
                }
            }
        }
    }
}

async fn download(args: DownloadArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let folder = args.from_folder;
    let folder = folder.map(|dir| update::source_text("--from-folder", dir, client)).transpose()?;
    let asked = DownloadToPackage {
        group: args.group,
        updates: named(args.updates)?,
        from_folder: folder,
        rate: args.rate,
    };
    let at = path(&["deployment-packages", &args.package, "download"]);
    let request = Request::new(Method::POST, &at).json(&asked)?;
    bring(request, args.detach, client, out).await
}

fn shown(it: &DeploymentPackageView) -> String {
    let mut rows = vec![
        ("deployment package", it.name.clone()),
        ("description", it.description.clone()),
        ("version", units::count(it.version)),
        ("updates", units::count(it.updates)),
        ("files", units::count(it.files)),
        ("size", units::bytes(it.bytes)),
        ("languages", it.languages.join(", ")),
        ("source", it.source.clone().unwrap_or_default()),
        ("made", units::when(it.created)),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    facts(&rows)
}
