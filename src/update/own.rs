//! `depot update author`, `withdraw` and `export`: updates of one's own.

use crate::{
    exit::{Failure, one_line},
    output::{Out, confirm},
    transport::{Client, Request, path, with_query},
    units,
};
use ::sync::sdp::author::{Description, Measured, build, measure};
use api::routes::content::UploadedContent;
use api::routes::own_updates::{ExportedUpdate, MeasuredFile, OwnUpdateView, PublishUpdate};
use clap::Args;
use http::Method;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The longest description that is read, in bytes.
const MAX_DESCRIPTION: u64 = 4 << 20;

/// Make an update of a description, and publish it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot update author tool.toml                 # says whether it is right
  depot update author tool.toml --publish

A description, with paths from the folder that it is in:
  title = \"Tool 2.1\"
  description = \"Mends the tool.\"
  vendor = \"Example\"
  product = \"Tool\"
  classification = \"update\"
  installed = '<b.FileExists Path=\"C:\\tool.exe\" Version=\"2.1.0.0\"/>'
  [[files]]
  path = \"tool-2.1.exe\"
  [installer]
  kind = \"command\"
  program = \"tool-2.1.exe\"
  arguments = \"/quiet\"

On Linux, rules ask for packages, and the program may be a script of its own:
  installable.dpkg = { name = \"tool\", is = \"less-than\", version = \"2.1\" }
  installed.dpkg = { name = \"tool\", is = \"greater-than-or-equal-to\", version = \"2.1\" }

Published again, by its id or by vendor, product and title, it is a new revision.")]
pub struct AuthorArgs {
    /// The description, in TOML, or in JSON if its name ends so
    file: PathBuf,
    /// Put it into the catalogue, as of the source `local`, and its files into the package
    #[arg(long)]
    publish: bool,
    /// The package that holds the files; it is made if there is none
    #[arg(long, value_name = "NAME", default_value = "own-updates", requires = "publish")]
    package: String,
}

/// Withdraw an update of one's own
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot update withdraw 'Tool 2.1' --yes

It expires, and no machine gets it anew. What other sources say stays as it is.")]
pub struct WithdrawArgs {
    /// Its id, its name, or that of an article of it
    id: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Write an update as a package of Updates Publisher
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot update export 'Tool 2.1' -o tool.sdp")]
pub struct ExportArgs {
    /// Its id, its name, or that of an article of it
    id: String,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

/// Checks a description, and publishes it.
pub async fn author(args: AuthorArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let description = read(&args.file)?;
    let folder = args.file.parent().unwrap_or(Path::new(""));
    let mut measured: BTreeMap<String, Measured> = BTreeMap::new();
    for path in description.files.iter().filter_map(|file| file.path.as_ref()) {
        let file = folder.join(path);
        let found = measure(&file).map_err(|error| Failure::input(&file, error))?;
        measured.insert(path.clone(), found);
    }
    let built = build(&description, &measured, description.id(), Timestamp::now());
    let wrong = |flaws| Failure::usage(format!("{}: {flaws}", args.file.display()));
    let (update, _) = built.map_err(wrong)?;
    if !args.publish {
        return out.show(&update, |w| {
            let files = units::counted(update.files().count() as u64, "file", "files");
            writeln!(w, "{} is right: {}, {files}", args.file.display(), update.name)?;
            writeln!(w, "publish it: depot update author {} --publish", args.file.display())
        });
    }
    for (path, found) in &measured {
        let sha256 = format!("sha256:{}", found.digests.get(SHA256).unwrap_or_default());
        let query = [("digest", Some(sha256.as_str())), ("alias", Some("sha256,sha1"))];
        let upload = Request::new(Method::PUT, &with_query("/content".to_owned(), &query));
        let file = folder.join(path);
        let _: UploadedContent = client.ask(upload.file(&file).await?).await?;
    }
    let files = measured
        .into_iter()
        .map(|(path, found)| (path, MeasuredFile { size: found.size, digests: found.digests }));
    let own = PublishUpdate { description, files: files.collect(), package: args.package };
    let view: OwnUpdateView = client.post("/updates", &own).await?;
    out.show(&view, |w| writeln!(w, "{} is published; its id is {}", one_line(&view.name), view.id))
}

const SHA256: ::sync::digests::Algorithm = ::sync::digests::Algorithm::Sha256;

fn read(file: &Path) -> Result<Description, Failure> {
    let input = |error: &dyn std::fmt::Display| Failure::input(file, error);
    let found = fs::metadata(file).map_err(|error| input(&error))?;
    if found.len() > MAX_DESCRIPTION {
        return Err(input(&"it is too long to be a description"));
    }
    let text = fs::read_to_string(file).map_err(|error| input(&error))?;
    if file.extension().is_some_and(|end| end.eq_ignore_ascii_case("json")) {
        return serde_json::from_str(&text).map_err(|error| input(&error));
    }
    toml::from_str(&text).map_err(|error| input(&one_line(&error.to_string())))
}

/// Withdraws an update.
pub async fn withdraw(args: WithdrawArgs, client: &Client, out: Out) -> Result<(), Failure> {
    confirm(&format!("this withdraws {}", args.id), args.yes)?;
    let address = path(&["updates", &args.id, "withdraw"]);
    let view: OwnUpdateView = client.ask(Request::new(Method::POST, &address)).await?;
    out.show(&view, |w| writeln!(w, "{} is withdrawn", one_line(&view.name)))
}

/// Writes an update as a package.
pub async fn export(args: ExportArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let found: ExportedUpdate = client.get(&path(&["updates", &args.id, "package"])).await?;
    fs::write(&args.output, &found.document).map_err(|error| {
        Failure::failed(format!("cannot write {}: {error}", args.output.display()))
    })?;
    let written = serde_json::json!({ "id": found.id, "file": args.output });
    out.show(&written, |w| {
        writeln!(w, "{} is written to {}", one_line(&found.name), args.output.display())
    })
}
