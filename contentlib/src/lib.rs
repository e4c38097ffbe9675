#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod digest;

pub mod chunker;
pub mod recipe;

pub mod block;
pub mod delta;
pub mod frames;

mod pack;
pub mod store;

mod index;
pub mod kv;

pub mod error;
pub mod progress;
pub mod refs;

mod assembly;
mod capture;
mod claims;
mod commit;
mod gc;
mod in_order;
mod ingest;
mod inspect;
mod leases;
mod library;
pub mod links;
mod read;
mod rebuild;
mod recovery;
mod scrub;
mod session;
mod transfer;
mod verify;
mod volumes;

#[doc(hidden)]
pub mod fuzzing;

pub use assembly::Assembly;
pub use block::Frame;
pub use capture::{Capture, CapturedPack, PackSource};
pub use digest::{ChunkId, Digest, Name, PackId};
pub use error::{
    AddError, CommitError, MaintainError, OpenError, PackProblem, ReadError, VolumeError,
};
pub use gc::{GcOptions, GcReport};
pub use index::PackState;
pub use ingest::{AddOptions, Added, Aliases, Recheck, Source};
pub use inspect::{LibraryStats, Room};
pub use library::{ContentStat, Environment, Library, Options, System};
pub use links::{Holder, Link, Links, NoLinks, Why};
pub use pack::format::BadPack;
pub use progress::{Cancelled, Progress};
pub use read::{ContentReader, CopyError, FilePlace, Segment};
pub use rebuild::RebuildReport;
pub use recipe::Recipe;
pub use refs::{Expect, Ref, RefChange};
pub use scrub::PackSize;
pub use session::{Keeps, Session};
pub use store::objects::{ObjectOptions, ObjectsError, Term};
pub use store::volumes::VolumeState;
pub use transfer::{Cost, FrameStream, REPAIR_BATCH, RepairReport, RepairSource};
pub use verify::{BadContent, VerifyOptions, VerifyReport};
pub use volumes::{DrainReport, NewVolume, VolumeStats};
