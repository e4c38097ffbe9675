//! `depot prestage export`: a bundle from the site, into a file or a pipe.
//!
//! Always true of a file: it appears under its name when the bundle's end mark came and all of its
//! checksums matched, or not at all. A pipe cannot be taken back; there a bundle that ends early is
//! an error, and whoever reads it misses the end mark.

use crate::{
    exit::{Doing, Exit, Failure},
    output::{Out, stdout_result},
    package::Selected,
    progress::{Progress, Standing},
    transport::{Client, Request, with_query},
    units,
};
use clap::Args;
use futures::StreamExt;
use http::Method;
use packager::prestage::{BundleDecoder, INVENTORY_TYPE, Inventory, Record, Step};
use serde::Serialize;
use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Make a bundle of versions, at the site, with only what a distribution point lacks
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot prestage export docs tools@stable -o bundle             # all of them, for an empty point
  depot prestage export docs --base inv -o /media/usb/bundle    # what the point of inv lacks
  depot prestage export docs --base inv -o - | ssh branch depot prestage import - --data /var/lib/depot

The inventory is made on the distribution point: depot prestage inventory -o inv")]
pub struct ExportArgs {
    /// NAME, NAME@VERSION or NAME@CHANNEL; several may be given
    #[arg(value_name = "NAME[@VERSION]", required = true)]
    packages: Vec<Selected>,
    /// Leave out what this inventory of the distribution point names
    #[arg(long, value_name = "FILE")]
    base: Option<PathBuf>,
    /// Write the bundle to this file; - is stdout
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

/// What came.
#[derive(Debug, Default, Serialize)]
struct Exported {
    versions: u64,
    files: u64,
    /// Of the files.
    bytes: u64,
    chunks: u64,
    bundle_bytes: u64,
}

/// Makes a bundle.
pub async fn run(args: ExportArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let named: Vec<String> = args
        .packages
        .iter()
        .map(|package| format!("{}@{}", package.name, package.version_or_latest()))
        .collect();
    let path = with_query("/prestage/export".into(), &[("packages", Some(&named.join(",")))]);
    let mut request = Request::new(Method::POST, &path);
    if let Some(base) = &args.base {
        request = request.bytes(read_inventory(base)?.into(), INVENTORY_TYPE);
    }
    if args.output.as_os_str() == "-" {
        let mut stdout = io::stdout().lock();
        copy(client, request, Out { quiet: true, ..out }, &mut stdout).await?;
        return stdout_result(stdout.flush());
    }
    let file = &args.output;
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut part = tempfile::Builder::new()
        .prefix(".depot-prestage-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .doing(|| format!("cannot write to {}", folder.display()))?;
    let done = tokio::select! {
        done = copy(client, request, out, part.as_file_mut()) => done?,
        // Not left to the system, which would leave the part there.
        _ = tokio::signal::ctrl_c() => return Err(Failure::interrupted()),
    };
    let written = |error: io::Error| Failure::from(error);
    part.as_file().sync_all().map_err(written)?;
    part.persist(file).doing(|| format!("cannot write {}", file.display()))?;
    // A medium is pulled out soon: the name is there as surely as the bytes.
    File::open(folder)?.sync_all()?;
    out.show(&done, |w| {
        writeln!(w, "{}: {}, whole and checked", file.display(), units::bytes(done.bundle_bytes))?;
        let versions = units::counted(done.versions, "version", "versions");
        let (files, bytes) =
            (units::counted(done.files, "file", "files"), units::bytes(done.bytes));
        let chunks = units::counted(done.chunks, "chunk", "chunks");
        writeln!(w, "  {versions} of {files}, {bytes}; {chunks} of them are in it")
    })
}

/// An inventory's bytes; those of any other file are not sent.
fn read_inventory(path: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = std::fs::read(path).map_err(|error| Failure::input(path, error))?;
    let doing = || format!("cannot use {}", path.display());
    Inventory::read(&mut &bytes[..])
        .map_err(|error| Failure::new(Exit::Usage, crate::exit::with_causes(&error)))
        .doing(doing)?;
    Ok(bytes)
}

/// Copies a bundle to `to` and checks it on the way.
async fn copy(
    client: &Client,
    request: Request,
    out: Out,
    to: &mut impl Write,
) -> Result<Exported, Failure> {
    let mut reply = client.send(request).await?;
    let mut decoder = BundleDecoder::default();
    let (mut done, mut standing) = (Exported::default(), Standing::default());
    let mut progress = Progress::new(out);
    let damaged = |what: String| {
        Failure::new(
            Exit::Damaged,
            format!("the bundle did not come whole: {what}; nothing is kept"),
        )
    };
    while let Some(piece) = reply.body.next().await {
        let piece = piece?;
        done.bundle_bytes += piece.len() as u64;
        decoder.push(&piece);
        while let Some(step) = decoder.next_step().map_err(|e| damaged(e.to_string()))? {
            match step {
                Step::Head(head) => {
                    (done.versions, done.files) = (head.versions.len() as u64, head.n_files());
                    done.bytes = head.bytes();
                    standing.total_files = Some(done.files);
                    standing.total_bytes = Some(done.bytes);
                }
                Step::Record(Record::Mark { files, bytes }) => {
                    (standing.files, standing.bytes) = (files, bytes);
                }
                Step::Record(Record::Chunks(frame)) => done.chunks += frame.lens().len() as u64,
                Step::Record(_) => {}
                Step::Damaged(damage) | Step::Lost(damage) => return Err(damaged(damage.what)),
            }
        }
        match to.write_all(&piece) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Err(Failure::failed("whoever reads the bundle went away"));
            }
            written => written.doing(|| "cannot write the bundle")?,
        }
        standing.new_bytes = Some(done.bundle_bytes);
        progress.set(&standing);
        // In process nothing here waits, and a Ctrl-C is to be heard.
        tokio::task::yield_now().await;
    }
    match decoder.cut() {
        None => Ok(done),
        Some(damage) => Err(damaged(damage.what)),
    }
}
