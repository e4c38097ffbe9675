//! Errors of the layers below as problems: which status each has, which field it names, what to do.

use crate::problem::{Kind, Problem, with_causes};
use contentlib::kv::KvError;
use contentlib::{AddError, CommitError, MaintainError, OpenError, ReadError, VolumeError};
use deployment::{CollectionError, DeploymentError};
use dp::identity::IdentityError;
use dp::node::NodeError;
use dp::registry::{RegistryError, WishError};
use packager::UnreadableVersion;
use packager::error::PackageError;
use packager::prestage::{NotAnInventory, PrestageError};
use packager::refs::RecordError;
use packager::restore::RestoreError;
use packager::scan::ScanError;
use packager::tar::TarError;
use packager::upload::UploadError;
use std::io;
use sync::error::{Cause, SyncError};
use sync::machine::MachineError;
use sync::source::SourceError;

impl From<sitedb::CommitError> for Problem {
    fn from(error: sitedb::CommitError) -> Self {
        match error {
            sitedb::CommitError::Conflict { .. } => {
                Problem::new(Kind::Conflict, "somebody else changed it at the same time: try again")
            }
            sitedb::CommitError::Db(error) => error.into(),
            other => Problem::internal(&other),
        }
    }
}

impl From<compliance::StoreError> for Problem {
    fn from(error: compliance::StoreError) -> Self {
        error.into_inner().into()
    }
}

impl From<CollectionError> for Problem {
    fn from(error: CollectionError) -> Self {
        let text = error.to_string();
        let about = |kind, field: &str| Problem::new(kind, text.as_str()).caused_by(field, &text);
        match error {
            CollectionError::Unknown(_) => about(Kind::NotFound, "collection"),
            CollectionError::Exists(_)
            | CollectionError::BuiltIn
            | CollectionError::Needed { .. }
            | CollectionError::TooMany => about(Kind::Conflict, "collection"),
            CollectionError::Cycle(_)
            | CollectionError::Missing { .. }
            | CollectionError::TooMuch { .. } => about(Kind::InvalidValue, "collection"),
            CollectionError::Store(error) => error.into(),
            other => Problem::internal(&other),
        }
    }
}

impl From<DeploymentError> for Problem {
    fn from(error: DeploymentError) -> Self {
        let text = error.to_string();
        let about = |kind, field: &str| Problem::new(kind, text.as_str()).caused_by(field, &text);
        match error {
            DeploymentError::UnknownGroup(_) => about(Kind::NotFound, "group"),
            DeploymentError::Unknown(_) => about(Kind::NotFound, "deployment"),
            DeploymentError::GroupExists(_) | DeploymentError::GroupDeployed { .. } => {
                about(Kind::Conflict, "group")
            }
            DeploymentError::Exists(_) | DeploymentError::TooMany { .. } => {
                about(Kind::Conflict, "name")
            }
            DeploymentError::GroupTooLarge { .. } => about(Kind::InvalidValue, "group"),
            DeploymentError::Unfit(unfit) => Problem::field(unfit.field, unfit.why),
            DeploymentError::Store(error) => error.into(),
            other => Problem::internal(&other),
        }
    }
}

impl From<IdentityError> for Problem {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::BadRequest(_) => Problem::new(Kind::InvalidValue, error.to_string())
                .caused_by("request", "must be a certificate signing request in PEM (PKCS #10)"),
            IdentityError::Io { ref source, .. } => io_problem(&error, source),
            IdentityError::Malformed { .. } | IdentityError::KeyIsGone { .. } => {
                Problem::new(Kind::Unavailable, with_causes(&error))
            }
            other => Problem::internal(&other),
        }
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        let text = error.to_string();
        let about = |kind, field: &str| Problem::new(kind, text.clone()).caused_by(field, &text);
        match error {
            RegistryError::UnknownPoint(_) => about(Kind::NotFound, "point"),
            RegistryError::UnknownGroup(_) => about(Kind::NotFound, "group"),
            RegistryError::UnknownFollower(_) => about(Kind::NotFound, "follower"),
            RegistryError::UnknownToken(_) => about(Kind::NotFound, "token"),
            RegistryError::UnknownOrder { .. } => about(Kind::NotFound, "number"),
            RegistryError::NotAssigned { .. } => about(Kind::NotFound, "package"),
            RegistryError::UnknownBoundary(_) => about(Kind::NotFound, "boundary"),
            RegistryError::UnknownBoundaryGroup(_) => about(Kind::NotFound, "group"),
            RegistryError::NotANeighbour { .. } => about(Kind::NotFound, "neighbour"),
            RegistryError::BoundaryExists { .. } => about(Kind::Conflict, "range"),
            RegistryError::BoundaryGroupExists(_) => about(Kind::Conflict, "name"),
            RegistryError::IsDefault(_) => about(Kind::Conflict, "group"),
            RegistryError::NoGroup => about(Kind::InvalidValue, "groups"),
            RegistryError::OwnNeighbour(_) => about(Kind::InvalidValue, "neighbour"),
            RegistryError::TooLate => about(Kind::InvalidValue, "after"),
            RegistryError::PointExists(_)
            | RegistryError::FollowerExists(_)
            | RegistryError::TokenExists(_)
            | RegistryError::GroupExists(_) => about(Kind::Conflict, "name"),
            RegistryError::NotAdmitted => about(Kind::Forbidden, "secret"),
            RegistryError::Circle { .. } => about(Kind::Conflict, "from"),
            RegistryError::TooManySources(_) => about(Kind::InvalidValue, "from"),
            RegistryError::BadReport(_) => about(Kind::InvalidValue, "report"),
            RegistryError::TooMany { .. } => Problem::new(Kind::Conflict, text),
            RegistryError::Read(error) => error.into(),
            RegistryError::Write(error) => error.into(),
            other => Problem::internal(&other),
        }
    }
}

impl From<SourceError> for Problem {
    fn from(error: SourceError) -> Self {
        let text = error.to_string();
        match error {
            SourceError::Unknown(_) => Problem::new(Kind::NotFound, text),
            SourceError::Exists(_) | SourceError::StillGoing(_) => {
                Problem::new(Kind::Conflict, text.clone()).caused_by("name", text)
            }
            SourceError::TooMany => Problem::new(Kind::Conflict, text),
            SourceError::Invalid { field, detail } => Problem::field(field, detail),
            SourceError::NotTheTop { .. } => Problem::new(Kind::Conflict, text),
            SourceError::Read(error) => error.into(),
            SourceError::Write(error) => error.into(),
            other => Problem::internal(&other),
        }
    }
}

impl From<MachineError> for Problem {
    fn from(error: MachineError) -> Self {
        let text = error.to_string();
        match error {
            MachineError::Source(error) => error.into(),
            MachineError::Catalogue(error) => error.into(),
            MachineError::Disabled(_)
            | MachineError::NotSynchronised(_)
            | MachineError::UnderWay(_)
            | MachineError::NotUnderWay(_) => Problem::new(Kind::Conflict, text),
            MachineError::Stopping => Problem::new(Kind::Unavailable, text),
            other => Problem::internal(&other),
        }
    }
}

/// What the site's own catalogue answers; for what an upstream does, `of_upstream`.
impl From<SyncError> for Problem {
    fn from(error: SyncError) -> Self {
        match error.cause {
            Cause::NotFound => Problem::new(Kind::NotFound, with_causes(&error)),
            Cause::Busy => Problem::new(Kind::Conflict, with_causes(&error)),
            _ => of_upstream(error),
        }
    }
}

/// A failure of work with an upstream.
pub fn of_upstream(error: SyncError) -> Problem {
    match error.cause {
        Cause::Local => Problem::internal(&error),
        cause => of_cause(cause, with_causes(&error)),
    }
}

/// What a sync that failed so is to who asked for it. That an upstream has not what it should have does
/// not mean that there is no such source, nor that anybody here is in the way where it is busy.
pub fn of_cause(cause: Cause, detail: String) -> Problem {
    let kind = match cause {
        Cause::Misconfigured => Kind::InvalidValue,
        Cause::Cancelled => Kind::Cancelled,
        _ => Kind::Upstream,
    };
    Problem::new(kind, detail)
}

impl From<WishError> for Problem {
    fn from(error: WishError) -> Self {
        match error {
            WishError::Registry(error) => error.into(),
            WishError::Packages(error) => error.into(),
            other => Problem::internal(&other),
        }
    }
}

impl From<sitedb::DbError> for Problem {
    fn from(error: sitedb::DbError) -> Self {
        match error {
            // It says itself what to do.
            sitedb::DbError::Full { .. } | sitedb::DbError::ServerFull { .. } => {
                Problem::new(Kind::StorageFull, error.to_string())
            }
            sitedb::DbError::Held { .. } | sitedb::DbError::NotUsable { .. } => {
                Problem::new(Kind::Conflict, error.to_string())
            }
            sitedb::DbError::TooLarge { .. } => Problem::new(Kind::TooLarge, error.to_string()),
            sitedb::DbError::Lost { .. }
            | sitedb::DbError::WentBack { .. }
            | sitedb::DbError::NewerFormat { .. }
            | sitedb::DbError::NewerValue { .. } => {
                Problem::new(Kind::Unavailable, error.to_string())
            }
            other => Problem::internal(&other),
        }
    }
}

/// A volume without room; the message of the error says how much is missing.
fn full(error: &dyn std::error::Error) -> Problem {
    Problem::new(Kind::StorageFull, format!("{}: free some space and retry", with_causes(error)))
}

/// `error`, whose cause is what the system said.
fn io_problem(error: &dyn std::error::Error, cause: &io::Error) -> Problem {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => full(error),
        _ => Problem::internal(error),
    }
}

impl From<OpenError> for Problem {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Io { ref source, .. } => io_problem(&error, source),
            OpenError::Volume(error) => error.into(),
            OpenError::Full => Problem::new(Kind::StorageFull, error.to_string()),
            _ => Problem::new(Kind::Unavailable, with_causes(&error)),
        }
    }
}

impl From<NodeError> for Problem {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Open(error @ OpenError::Locked { .. }) => {
                let what = "the distribution point starts, stops, or is an older depot that cannot be \
                    asked; try again, or stop it first";
                Problem::new(Kind::Conflict, format!("{}: {what}", with_causes(&error)))
            }
            NodeError::Open(error) => error.into(),
            NodeError::Packages(error) => error.into(),
            other => Problem::new(Kind::Unavailable, with_causes(&other)),
        }
    }
}

impl From<VolumeError> for Problem {
    fn from(error: VolumeError) -> Self {
        let text = error.to_string();
        let about = |kind, field: &str, detail: &str| {
            Problem::new(kind, text.clone()).caused_by(field, detail)
        };
        let path = |kind, detail: &str| about(kind, "path", detail);
        match error {
            VolumeError::Unknown { .. } => about(Kind::NotFound, "volume", &text),
            VolumeError::NotAbsolute { .. } => {
                path(Kind::InvalidValue, "must be an absolute path of at most 2048 bytes of UTF-8")
            }
            VolumeError::NotAFolder { .. } => {
                path(Kind::InvalidValue, "is no folder: make it, or mount its disk")
            }
            VolumeError::NotEmpty { .. } => path(Kind::InvalidValue, "must be an empty folder"),
            VolumeError::OfAnotherLibrary { .. } => {
                path(Kind::Conflict, "belongs to another library: choose another folder")
            }
            VolumeError::InUse { .. } => {
                path(Kind::Conflict, "is used by the library already: choose another folder")
            }
            VolumeError::NameTaken { .. } => {
                about(Kind::Conflict, "name", "is taken: choose another")
            }
            VolumeError::BadName { .. } => about(
                Kind::InvalidValue,
                "name",
                "must have 1 to 64 of a-z, 0-9, `.`, `_`, `-`, the first a letter or digit",
            ),
            VolumeError::Reserve { most } => {
                about(Kind::InvalidValue, "reserve_bytes", &format!("must be at most {most}"))
            }
            VolumeError::TooMany { .. }
            | VolumeError::LastActive { .. }
            | VolumeError::HoldsPacks { .. }
            | VolumeError::Resumed { .. }
            | VolumeError::Home
            | VolumeError::OnObjectStore { .. }
            | VolumeError::NotLost { .. } => about(Kind::Conflict, "volume", &text),
            VolumeError::Io { ref source, .. } => io_problem(&error, source),
            // The library cannot be opened; the text says what to do on the server.
            _ => Problem::new(Kind::Unavailable, text),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match &error {
            ReadError::Index(error) => error.clone().into(),
            ReadError::Unknown(_) => Problem::new(Kind::NotFound, error.to_string()),
            ReadError::Revoked(_) => Problem::new(Kind::Revoked, error.to_string()),
            ReadError::MissingChunk { .. } | ReadError::Suspect { .. } => {
                Problem::new(Kind::Damaged, error.to_string()).retry_after(60)
            }
            _ => Problem::internal(&error),
        }
    }
}

impl From<AddError> for Problem {
    fn from(error: AddError) -> Self {
        match &error {
            AddError::WrongDigest { .. } => Problem::new(Kind::WrongDigest, error.to_string())
                .caused_by("digest", error.to_string()),
            AddError::Revoked(_) => Problem::new(Kind::Revoked, error.to_string()),
            AddError::MissingChunks(ids) => {
                let mut problem = Problem::new(Kind::Conflict, error.to_string());
                for id in ids.iter().take(100) {
                    problem = problem.caused_by(id.to_string(), "is not held: send it first");
                }
                problem
            }
            AddError::Recipe(_) | AddError::Frame(_) => {
                Problem::new(Kind::MalformedRequest, with_causes(&error))
            }
            AddError::Moved | AddError::Interrupted => {
                Problem::new(Kind::Conflict, error.to_string())
            }
            AddError::Source(cause) => from_body_or_source(&error, cause),
            AddError::Full { .. } => Problem::new(
                Kind::StorageFull,
                format!("{error}: free some space, or add a volume, and retry"),
            ),
            AddError::Store(cause) => io_problem(&error, cause),
            AddError::Index(error) => error.clone().into(),
            AddError::Cancelled(_) => cancelled(),
            _ => Problem::internal(&error),
        }
    }
}

/// The problem that a body ended in, if that is why reading failed; see [`crate::streams`].
fn of_body(cause: &io::Error) -> Option<Problem> {
    let inner: &(dyn std::error::Error + 'static) = cause.get_ref()?;
    let deeper = || inner.downcast_ref::<io::Error>().and_then(of_body);
    inner.downcast_ref::<Problem>().cloned().or_else(deeper)
}

/// Reading the source failed: because the body of the request did, or because of a folder here.
fn from_body_or_source(error: &dyn std::error::Error, cause: &io::Error) -> Problem {
    if let Some(problem) = of_body(cause) {
        return problem;
    }
    Problem::new(Kind::InvalidValue, with_causes(error)).caused_by("source", cause.to_string())
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        match &error {
            CommitError::Conflict { .. } | CommitError::Interrupted => {
                Problem::new(Kind::Conflict, error.to_string())
            }
            CommitError::BadRef { .. } => Problem::new(Kind::InvalidValue, error.to_string()),
            CommitError::MissingRoot(_) => Problem::new(Kind::Conflict, error.to_string()),
            CommitError::Store(cause) => io_problem(&error, cause),
            // Its record may be on the disk, and then the next open makes it.
            CommitError::Index(KvError::Full) => Problem::new(
                Kind::StorageFull,
                format!("{error}; the change is not made, but a restart may still make it"),
            ),
            _ => Problem::internal(&error),
        }
    }
}

impl From<MaintainError> for Problem {
    fn from(error: MaintainError) -> Self {
        match error {
            MaintainError::Busy => {
                Problem::new(Kind::Conflict, "another run is at work: wait for its end")
            }
            MaintainError::Read(error) => error.into(),
            MaintainError::Add(error) => error.into(),
            MaintainError::Commit(error) => error.into(),
            MaintainError::Open(error) => error.into(),
            MaintainError::Volume(error) => error.into(),
            MaintainError::Index(error) => error.into(),
            MaintainError::Cancelled(_) => cancelled(),
            MaintainError::Holder { .. } => Problem::new(Kind::Upstream, with_causes(&error)),
            MaintainError::Store { ref source, .. } => io_problem(&error, source),
            MaintainError::Links { ref source, .. } if source.is::<UnreadableVersion>() => {
                Problem::new(Kind::Damaged, with_causes(&error))
            }
            other => Problem::internal(&other),
        }
    }
}

/// What a cancelled job answers.
pub fn cancelled() -> Problem {
    Problem::new(Kind::Cancelled, "cancelled; nothing of it took effect")
}

impl From<KvError> for Problem {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Full => Problem::new(Kind::StorageFull, error.to_string()),
            _ => Problem::internal(&error),
        }
    }
}

impl From<PackageError> for Problem {
    fn from(error: PackageError) -> Self {
        let text = error.to_string();
        let about = |kind, field: &str, detail: &str| {
            Problem::new(kind, text.clone()).caused_by(field, detail)
        };
        match error {
            PackageError::UnknownPackage(name) => {
                let fix = format!("{text}; create it: depot package create {name}");
                Problem::new(Kind::NotFound, fix).caused_by("package", text)
            }
            PackageError::UnknownVersion { .. } => about(Kind::NotFound, "version", &text),
            PackageError::UnknownChannel { .. } => about(Kind::NotFound, "channel", &text),
            PackageError::UnknownFolder { .. } => {
                about(Kind::NotFound, "path", "is no folder there")
            }
            PackageError::Exists(_) => about(Kind::Conflict, "name", "is taken: choose another"),
            PackageError::Busy(_) => Problem::new(Kind::Conflict, text).retry_after(2),
            PackageError::SourceTaken { .. } => {
                about(Kind::Conflict, "source", "is another package's: choose another folder")
            }
            PackageError::Source { ref source, .. } => {
                let detail = format!("cannot be used: {source}");
                about(Kind::InvalidValue, "source", &detail)
            }
            PackageError::SourceHoldsSite { .. } => about(
                Kind::InvalidValue,
                "source",
                "must lie outside the data folder and the library's volumes",
            ),
            PackageError::TakesUploads(_)
            | PackageError::TakesUpstream(_)
            | PackageError::TakesFolder { .. }
            | PackageError::VersionInUse { .. }
            | PackageError::OfAPoint => Problem::new(Kind::Conflict, text),
            PackageError::Manifest { .. } => {
                Problem::new(Kind::Damaged, with_causes(&error)).retry_after(60)
            }
            PackageError::Scan(error) => error.into(),
            PackageError::Tree(_) => Problem::new(Kind::InvalidValue, text),
            PackageError::Read(error) => error.into(),
            PackageError::Add(error) => error.into(),
            PackageError::Commit(error) => error.into(),
            PackageError::Record(RecordError::Index(error)) => error.into(),
            PackageError::Cancelled(_) => cancelled(),
            other => Problem::internal(&other),
        }
    }
}

/// Entries that a problem names; a source of unreadable files may have thousands.
const MAX_NAMED: usize = 100;

impl From<ScanError> for Problem {
    fn from(error: ScanError) -> Self {
        let text = with_causes(&error);
        match error {
            ScanError::Folder { source, .. } => Problem::new(Kind::InvalidValue, text)
                .caused_by("source", format!("cannot be opened: {source}")),
            ScanError::Problems(problems) => {
                let named = problems.named.iter().take(MAX_NAMED);
                named.fold(Problem::new(Kind::InvalidValue, text), |problem, entry| {
                    problem.caused_by(format!("source/{}", entry.path), entry.why.to_string())
                })
            }
            ScanError::Moving { .. } => Problem::new(Kind::Conflict, text).retry_after(30),
            ScanError::Add { path, source } => {
                let problem = Problem::from(source);
                let detail = format!("{path}: {}", problem.detail);
                Problem { detail, ..problem }
            }
            ScanError::Library(error) => error.into(),
            ScanError::Tree(_) => Problem::new(Kind::InvalidValue, text),
            ScanError::Cancelled(_) => cancelled(),
            other => Problem::internal(&other),
        }
    }
}

impl From<RestoreError> for Problem {
    fn from(error: RestoreError) -> Self {
        let text = with_causes(&error);
        match error {
            RestoreError::Package(error) => error.into(),
            RestoreError::Dest { source, .. } => Problem::new(Kind::InvalidValue, text)
                .caused_by("destination", format!("cannot be used: {source}")),
            RestoreError::DestHoldsSite { .. } => Problem::new(Kind::InvalidValue, text)
                .caused_by("destination", "must lie outside the data folder and the volumes"),
            RestoreError::FolderInTheWay { .. } => Problem::new(Kind::Conflict, text),
            RestoreError::Content { source, path } => {
                let problem = Problem::from(source);
                let detail = format!("{path}: {}", problem.detail);
                Problem { detail, ..problem }
            }
            RestoreError::NotTheContent { .. } => Problem::new(Kind::Damaged, text),
            RestoreError::Entry { ref source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => full(&error),
                _ => Problem::new(Kind::InvalidValue, text),
            },
            RestoreError::Cancelled(_) => cancelled(),
            other => Problem::internal(&other),
        }
    }
}

impl From<PrestageError> for Problem {
    fn from(error: PrestageError) -> Self {
        let text = with_causes(&error);
        match error {
            PrestageError::Nothing => Problem::field("packages", text),
            PrestageError::TooMany(_) => Problem::new(Kind::InvalidValue, text),
            PrestageError::ForeignInventory { .. } => Problem::new(Kind::Conflict, text),
            PrestageError::Lost { .. } => Problem::new(Kind::Damaged, text),
            PrestageError::Package(error) => error.into(),
            other => Problem::internal(&other),
        }
    }
}

impl From<NotAnInventory> for Problem {
    fn from(error: NotAnInventory) -> Self {
        match error {
            NotAnInventory::Io(ref cause) => {
                of_body(cause).unwrap_or_else(|| Problem::malformed("body", with_causes(&error)))
            }
            other => Problem::new(Kind::InvalidValue, other.to_string()),
        }
    }
}

impl From<TarError> for Problem {
    fn from(error: TarError) -> Self {
        let text = with_causes(&error);
        match error {
            TarError::Broken(_) | TarError::CutOff => {
                Problem::new(Kind::MalformedRequest, text.clone()).caused_by("body", text)
            }
            TarError::Compression(_) => {
                Problem::new(Kind::UnsupportedMediaType, text.clone()).caused_by("body", text)
            }
            TarError::Read(cause) => of_body(&cause).unwrap_or_else(|| {
                Problem::new(Kind::MalformedRequest, text).caused_by("body", cause.to_string())
            }),
            TarError::Entry { path, why } => {
                Problem::new(Kind::InvalidValue, text).caused_by(path, why.to_string())
            }
            TarError::Add { path, source } => {
                let problem = Problem::from(source);
                let detail = format!("{path}: {}", problem.detail);
                Problem { detail, ..problem }
            }
            TarError::Package(error) => error.into(),
            other => Problem::internal(&other),
        }
    }
}

impl From<UploadError> for Problem {
    fn from(error: UploadError) -> Self {
        let text = with_causes(&error);
        let about = |kind, field: &str, detail: &str| {
            Problem::new(kind, text.clone()).caused_by(field, detail)
        };
        match error {
            UploadError::Unknown(_) => about(Kind::NotFound, "upload", "is not under way"),
            UploadError::Unreadable { .. } => about(Kind::Conflict, "upload", "cannot be read"),
            UploadError::Frames(_) | UploadError::CutOff { .. } => {
                about(Kind::MalformedRequest, "body", &text)
            }
            UploadError::Stream { ref source, .. } => match of_body(source) {
                Some(problem) if !problem.is(Kind::MalformedRequest) => problem,
                // Of other bodies that break off nothing is kept, and their problem says so.
                _ => Problem::new(Kind::MalformedRequest, error.to_string())
                    .caused_by("body", "ended early"),
            },
            UploadError::Add(error) => error.into(),
            UploadError::Missing { missing, .. } => {
                missing.iter().fold(Problem::new(Kind::Conflict, text), |problem, digest| {
                    problem.caused_by(digest.to_string(), "is not held: send it first")
                })
            }
            UploadError::WrongSize { ref path, found, .. } => {
                about(Kind::InvalidValue, path, &format!("has content of {found} bytes"))
            }
            UploadError::Revoked { ref path, .. } => {
                about(Kind::Revoked, path, "has content that was revoked")
            }
            UploadError::Reserved(_) => {
                about(Kind::InvalidValue, packager::fetch_state::FOLDER, &text)
            }
            UploadError::Package(error) => error.into(),
            other => Problem::internal(&other),
        }
    }
}
