//! `depot prestage inventory` and `import`, on the folder of a distribution point.
//!
//! The library is open in one process at a time. If the point runs, it does the work: this process
//! hands it the bundle's bytes over the socket in the folder. Else the library is opened here.

use crate::{
    cli::Shared,
    exit::{Doing, Exit, Failure, one_line, with_causes},
    output::{Out, stdout_result},
    progress::{Standing, shown, until},
    transport::{failure_of, point::running},
    units,
};
use api::{Config, Options, problem::Problem};
use clap::Args;
use contentlib::{OpenError, Progress};
use dp::node::{self, NodeError, ShortPath};
use futures::{Stream, StreamExt, stream};
use packager::{
    Packages,
    prestage::{
        BUNDLE_TYPE, BadBundle, Imported, ImportedState, ImportedVersion, Inventory, PrestageError,
    },
};
use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

/// Write down what a distribution point holds, compactly
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot prestage inventory --data /var/lib/depot -o inv     # on the point's machine
  depot prestage inventory --data /var/lib/depot -o - | ssh site tee inv > /dev/null

Bring the file to the site, and make a bundle there: depot prestage export docs --base inv -o bundle
It takes about six bytes for each chunk that is held. Whether the point runs makes no difference.")]
pub struct InventoryArgs {
    /// Write it to this file; - is stdout
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

/// Take a bundle in, at the distribution point
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot prestage import /media/usb/bundle --data /var/lib/depot
  depot prestage import - --data /var/lib/depot < bundle

Whether the point runs makes no difference. A bundle of another site is refused before anything is
stored, and so is a file for which there is no room. An import that was cut off is repeated with the same command and goes on; one that was done
stores nothing. Versions that are whole are served at once, unless the site said that it does not
want them here: those are kept for a week, and distributing them moves nothing. Of versions that are
not whole, the network brings what is missing.")]
pub struct ImportArgs {
    /// The bundle; - is stdin
    file: PathBuf,
}

/// Where a point's folder is worked on.
enum Place {
    /// By the point itself, which runs; a way to its socket.
    Running(ShortPath),
    /// In this process.
    Here(Packages),
}

impl Place {
    async fn open(shared: &Shared) -> Result<(Self, PathBuf), Failure> {
        let Some(folder) = &shared.data else {
            let what = "name the folder of the distribution point on this machine with --data DIR";
            return Err(Failure::usage(what));
        };
        if !node::is_point(folder) {
            let folder = folder.display();
            let what = format!("{folder} is no folder of a distribution point");
            return Err(Failure::new(Exit::NotFound, what));
        }
        let options = Options { data: Some(folder.clone()), ..Options::default() };
        let config = Config::load(&options, std::env::vars_os())
            .map_err(|error| Failure::usage(with_causes(&error)))?;
        let folder = folder.clone();
        tokio::task::spawn_blocking(move || {
            let place = match running(&folder)? {
                Some(socket) => Self::Running(socket),
                None => Self::Here(open_here(&folder, &config)?),
            };
            Ok((place, folder))
        })
        .await?
    }
}

fn open_here(folder: &Path, config: &Config) -> Result<Packages, Failure> {
    let clock = Arc::new(jiff::Timestamp::now);
    node::open_copies(folder, config.library_options(), clock).map_err(|error| match &error {
        NodeError::Open(OpenError::Locked { .. }) => {
            let what = "it starts, stops, or is an older depot that cannot be asked; try again, or \
                stop it first";
            Failure::new(Exit::Conflict, format!("{}: {what}", with_causes(&error)))
        }
        _ => Failure::failed(with_causes(&error)),
    })
}

/// Closes the library, after whatever came of the work on it.
async fn close<T>(packages: Packages, done: Result<T, Failure>) -> Result<T, Failure> {
    let closed = tokio::task::spawn_blocking(move || packages.library().close()).await?;
    let done = done?;
    closed?;
    Ok(done)
}

/// Writes an inventory.
pub async fn inventory(args: InventoryArgs, shared: &Shared, out: Out) -> Result<(), Failure> {
    let (place, _) = Place::open(shared).await?;
    let bytes = match place {
        Place::Running(socket) => {
            let answer = ask(&socket)?.get("http://point/inventory").send().await;
            let answer = answer.map_err(|error| gone(&error))?;
            let answer = refused(answer).await?;
            answer.bytes().await.map_err(|error| gone(&error))?.to_vec()
        }
        Place::Here(packages) => {
            let counters = Arc::new(Progress::default());
            let work = {
                let (packages, counters) = (packages.clone(), counters.clone());
                tokio::task::spawn_blocking(move || {
                    let mut bytes = Vec::new();
                    packages.write_inventory(&mut bytes, &counters).map(|_| bytes)
                })
            };
            let done = shown(out, &counters, async { work.await?.map_err(failure) }).await;
            close(packages, done).await?
        }
    };
    // As whoever uses it will: what was cut off is not handed out.
    let read =
        Inventory::read(&mut &bytes[..]).map_err(|error| Failure::failed(with_causes(&error)))?;
    if args.output.as_os_str() == "-" {
        let mut stdout = io::stdout().lock();
        return stdout_result(stdout.write_all(&bytes).and_then(|()| stdout.flush()));
    }
    let file = &args.output;
    write_whole(file, &bytes).doing(|| format!("cannot write {}", file.display()))?;
    let (chunks, contents) = (read.n_chunks(), read.n_contents());
    let said = serde_json::json!({
        "file": file, "bytes": bytes.len(), "chunks": chunks, "contents": contents,
    });
    out.show(&said, |w| {
        let chunks = units::counted(chunks, "chunk", "chunks");
        writeln!(w, "{}: {chunks} in {}", file.display(), units::bytes(bytes.len() as u64))
    })
}

/// Writes a file whole or not at all, durably.
fn write_whole(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut part = tempfile::Builder::new()
        .prefix(".depot-prestage-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)?;
    part.write_all(bytes)?;
    part.as_file().sync_all()?;
    part.persist(file)?;
    Ok(File::open(folder)?.sync_all()?)
}

/// Takes a bundle in.
pub async fn import(args: ImportArgs, shared: &Shared, out: Out) -> Result<(), Failure> {
    let (from, size) = open_bundle(&args.file)?;
    let (place, _) = Place::open(shared).await?;
    let imported = match place {
        Place::Running(socket) => {
            let sent = Arc::new(AtomicU64::new(0));
            let body = reqwest::Body::wrap_stream(pieces(from, sent.clone()));
            let asked = async {
                let post = ask(&socket)?.post("http://point/import");
                let mut post = post.header(http::header::CONTENT_TYPE, BUNDLE_TYPE).body(body);
                if let Some(size) = size {
                    post = post.header(node::BUNDLE_SIZE, size);
                }
                let answer = post.send().await.map_err(|error| gone(&error))?;
                let text = refused(answer).await?.bytes().await.map_err(|error| gone(&error))?;
                Ok::<_, Failure>(serde_json::from_slice::<Imported>(&text)?)
            };
            let standing =
                || Standing { bytes: sent.load(Relaxed), total_bytes: size, ..Standing::default() };
            let stopped = async { drop(tokio::signal::ctrl_c().await) };
            until(out, standing, stopped, asked).await?
        }
        Place::Here(packages) => {
            let counters = Arc::new(Progress::default());
            let work = {
                let (packages, counters) = (packages.clone(), counters.clone());
                tokio::task::spawn_blocking(move || {
                    let mut from = from;
                    let standing = |_: &_| packager::prestage::Standing::Unknown;
                    packages.import(&mut from, size, &standing, &counters)
                })
            };
            let done = shown(out, &counters, async { work.await?.map_err(failure) }).await;
            close(packages, done).await?
        }
    };
    out.show(&imported, |w| people(w, &imported))?;
    match imported.damage {
        None => Ok(()),
        Some(damage) => Err(Failure::new(
            Exit::Damaged,
            format!(
                "record {} of the bundle, at byte {}: {}; what was good is kept: import it again from \
                 a good copy",
                damage.record,
                damage.offset,
                one_line(&damage.what)
            ),
        )),
    }
}

fn open_bundle(path: &Path) -> Result<(Box<dyn Read + Send>, Option<u64>), Failure> {
    if path.as_os_str() == "-" {
        return Ok((Box::new(io::stdin()), None));
    }
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
    let (found, file) = opened.map_err(|error| Failure::input(path, error))?;
    if found.is_dir() {
        return Err(Failure::input(path, "it is a folder"));
    }
    Ok((Box::new(file), found.is_file().then_some(found.len())))
}

/// The bytes of a bundle, read off the async threads as they are taken.
fn pieces(
    from: Box<dyn Read + Send>,
    sent: Arc<AtomicU64>,
) -> impl Stream<Item = io::Result<bytes::Bytes>> {
    stream::try_unfold(from, |mut from| async move {
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; PIECE];
            loop {
                match from.read(&mut piece) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                    Ok(0) => return Ok(None),
                    Ok(n) => {
                        piece.truncate(n);
                        return Ok(Some((bytes::Bytes::from(piece), from)));
                    }
                }
            }
        });
        read.await.map_err(io::Error::other)?
    })
    .inspect(move |piece| {
        if let Ok(piece) = piece {
            sent.fetch_add(piece.len() as u64, Relaxed);
        }
    })
}

/// A client of the running point.
fn ask(socket: &ShortPath) -> Result<reqwest::Client, Failure> {
    crate::transport::with_tls();
    Ok(reqwest::Client::builder().unix_socket(socket.path()).no_proxy().build()?)
}

fn gone(error: &reqwest::Error) -> Failure {
    let what = "what came until then is kept; its log says more";
    Failure::failed(format!(
        "the distribution point stopped answering: {}; {what}",
        with_causes(error)
    ))
}

/// The answer, if it is a success.
async fn refused(answer: reqwest::Response) -> Result<reqwest::Response, Failure> {
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    let text = answer.bytes().await.map_err(|error| gone(&error))?;
    Err(match serde_json::from_slice::<Problem>(&text) {
        Ok(problem) => failure_of(&problem),
        Err(_) => Failure::failed(format!("the distribution point answers {status}")),
    })
}

/// An error with the exit code that a running point's answer stands for, too.
fn failure(error: PrestageError) -> Failure {
    let exit = match &error {
        PrestageError::Bundle(BadBundle::Foreign { .. } | BadBundle::NotProven(_)) => {
            Exit::Conflict
        }
        PrestageError::Bundle(BadBundle::Head(_)) => Exit::Damaged,
        PrestageError::Bundle(BadBundle::Magic | BadBundle::Version(_)) => Exit::Usage,
        PrestageError::Cancelled(_) => Exit::Interrupted,
        _ => Exit::Failed,
    };
    Failure::new(exit, with_causes(&error))
}

fn people(w: &mut dyn Write, imported: &Imported) -> io::Result<()> {
    let (chunks, stored) = (imported.chunks, units::bytes(imported.stored_bytes));
    writeln!(w, "stored {}, {stored}", units::counted(chunks, "new chunk", "new chunks"))?;
    for version in &imported.versions {
        let ImportedVersion { package, version: number, state, missing_bytes, .. } = version;
        let what = match state {
            ImportedState::Already => "was held already".to_owned(),
            ImportedState::Held => "is held from now on".to_owned(),
            ImportedState::Kept => match version.kept_until {
                Some(until) => format!(
                    "is all here, and not distributed here: kept until {}",
                    units::when(until)
                ),
                None => "is all here, and not distributed here".to_owned(),
            },
            ImportedState::NotReached => format!(
                "was not reached in this bundle, and lacks {} in {} here",
                units::bytes(*missing_bytes),
                units::counted(version.missing_contents, "content", "contents")
            ),
            ImportedState::Incomplete => format!(
                "lacks {} in {}: the network brings them, or a bundle with a new inventory",
                units::bytes(*missing_bytes),
                units::counted(version.missing_contents, "content", "contents")
            ),
        };
        writeln!(w, "  {package}@{number} {what}")?;
    }
    Ok(())
}
