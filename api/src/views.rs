//! The JSON of answers about packages, as types: for the document, and for clients to read.
//!
//! Handlers answer with packager's own types, which serialise to this. The integration tests hold
//! every answer to the document's schemas, so the two cannot drift apart.

use crate::mirror::{Mirror, MirroredView};
use contentlib::Digest;
use jiff::Timestamp;
use packager::name::{ChannelName, PackageName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use utoipa::ToSchema;

/// Where a package's files come from: `{"folder": "/srv/docs"}`, `"upload"` or `"composed"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(example = json!({"folder": "/srv/docs"}))]
pub enum SourceView {
    /// A folder of the server. Bytes that are not UTF-8, and backslashes, are written as `\xff`.
    Folder(String),
    /// Clients send them.
    Upload,
    /// The site puts them together from files of upstreams.
    Composed,
}

/// Which versions of a package are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"keep": 5}))]
pub struct RetentionView {
    /// The newest so many are kept.
    #[schema(value_type = u32, minimum = 1)]
    pub keep: NonZeroU32,
    /// Of those, ones that a newer version replaced more days ago go as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub days: Option<NonZeroU32>,
}

/// One version of a package, signed by the site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "package": "docs", "version": 2,
    "manifest": "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    "tree": "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    "signature": "5d0c…", "key": "91aa…",
    "n_files": 312, "n_folders": 40, "n_links": 3, "bytes": 9000000, "new_bytes": 8000000,
    "created": "2026-11-22T12:00:00Z"
}))]
pub struct VersionView {
    /// The package.
    #[schema(value_type = String)]
    pub package: PackageName,
    /// Its version's number; 1 is the empty one.
    pub version: u64,
    /// The manifest, as content.
    #[schema(value_type = String)]
    pub manifest: Digest,
    /// What the tree is, apart from its times.
    pub tree: String,
    /// The site's signature (Ed25519) of the four fields above.
    pub signature: String,
    /// The key it was made with.
    pub key: String,
    /// Files in the tree.
    pub n_files: u64,
    /// Folders in the tree.
    pub n_folders: u64,
    /// Symbolic links in the tree.
    pub n_links: u64,
    /// The sizes of all files together.
    pub bytes: u64,
    /// Of those, the bytes that were not held before this version.
    pub new_bytes: u64,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
}

/// A package.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PackageView {
    /// Its name.
    #[schema(value_type = String, example = "docs")]
    pub name: PackageName,
    /// Where its files come from.
    pub source: SourceView,
    /// What it mirrors, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// Which versions are kept.
    pub retention: RetentionView,
    /// Its channels, with the versions they point to.
    #[schema(value_type = BTreeMap<String, u64>, example = json!({"stable": 2}))]
    pub channels: BTreeMap<ChannelName, u64>,
    /// Its newest version.
    pub latest: Option<VersionView>,
    /// How many versions there are.
    #[schema(example = 2)]
    pub n_versions: u64,
    /// When it was made.
    #[schema(value_type = String, format = DateTime, example = "2026-11-22T12:00:00Z")]
    pub created: Timestamp,
}

/// What was deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "package": "docs", "versions": [1, 2], "freed": {"contents": 312, "bytes": 9000000},
    "freed_at": "2026-11-23T12:00:00Z"
}))]
pub struct DeletedView {
    /// The package.
    #[schema(value_type = String)]
    pub package: PackageName,
    /// The versions that are gone.
    pub versions: Vec<u64>,
    /// What becomes free; null if some manifest is damaged, so that it cannot be known.
    pub freed: Option<FreedView>,
    /// When their space can be used again: with the first garbage collection from then on.
    #[schema(value_type = String, format = DateTime)]
    pub freed_at: Timestamp,
}

/// Contents that no version of any package has any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"contents": 312, "bytes": 9000000}))]
pub struct FreedView {
    /// How many.
    pub contents: u64,
    /// Their sizes together: the most that can become free, since chunks that other contents
    /// share stay.
    pub bytes: u64,
}

/// An entry of a version's tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "path": "a/readme.txt", "type": "file", "size": 120,
    "digest": "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    "mode": 420, "mtime": "2026-11-22T12:00:00Z"
}))]
pub struct EntryView {
    /// Its path in the package. Bytes that are not UTF-8, control characters and backslashes are
    /// written as `\xff`.
    pub path: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: EntryKind,
    /// A file's length in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// A file's content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub digest: Option<Digest>,
    /// The digest of a file's recipe, if it has more than one chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub recipe: Option<Digest>,
    /// Where a link points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Its mode: the low twelve bits of `st_mode`.
    pub mode: u16,
    /// When it was last modified.
    #[schema(value_type = String, format = DateTime)]
    pub mtime: Timestamp,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A file.
    File,
}

/// One page of a version's tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TreeView<E = EntryView> {
    /// The version that they are of.
    #[schema(example = 2)]
    pub version: u64,
    /// The entries, in the order of paths.
    pub items: Vec<E>,
    /// The cursor of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// How an entry changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HowView {
    /// It was not there before.
    Added,
    /// It is not there any more.
    Removed,
    /// A file has other bytes.
    Content,
    /// A link points elsewhere.
    Target,
    /// Only its mode is another.
    Mode,
    /// It is another kind of thing.
    Type,
}

/// One path at which two versions differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeView {
    /// The path.
    #[schema(example = "a/readme.txt")]
    pub path: String,
    /// How it changed.
    pub how: HowView,
    /// The entry before, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<EntryView>,
    /// The entry after, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<EntryView>,
}

/// How many paths changed in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"added": 1, "removed": 0, "changed": 2, "mode": 0, "kind": 0}))]
pub struct DiffCountsView {
    /// Paths only in the later version.
    pub added: u64,
    /// Paths only in the earlier version.
    pub removed: u64,
    /// Files with other bytes and links that point elsewhere.
    pub changed: u64,
    /// Entries with another mode alone.
    pub mode: u64,
    /// Entries that became another kind of thing.
    pub kind: u64,
}

/// How two versions differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiffView<N = DiffCountsView, C = ChangeView> {
    /// The earlier version.
    #[schema(example = 2)]
    pub from: u64,
    /// The later version.
    #[schema(example = 3)]
    pub to: u64,
    /// How many paths differ, in the whole.
    pub counts: N,
    /// The paths of this page, in their order.
    pub items: Vec<C>,
    /// The cursor of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A channel that was pointed to a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"package": "docs", "channel": "stable", "from": 2, "to": 3}))]
pub struct ChannelMovedView {
    /// The package.
    #[schema(value_type = String)]
    pub package: PackageName,
    /// The channel.
    #[schema(value_type = String)]
    pub channel: ChannelName,
    /// The version it pointed to before; null if the channel is new.
    pub from: Option<u64>,
    /// The version it points to now.
    pub to: u64,
}

/// What an update or an upload came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "package": "docs", "version": 2, "unchanged": false, "files": 312, "bytes": 9000000,
    "files_read": 312, "new_bytes": 8000000, "stored_bytes": 3000000, "dedup_ratio": 1.125,
    "compression_ratio": 2.67, "removed_versions": [], "seconds": 0.12
}))]
pub struct UpdateView {
    /// The package.
    #[schema(value_type = String)]
    pub package: PackageName,
    /// Its newest version.
    pub version: u64,
    /// The tree is that of the version before: no version was made.
    pub unchanged: bool,
    /// Files in the tree.
    pub files: u64,
    /// Their sizes together.
    pub bytes: u64,
    /// Files that were read or received.
    pub files_read: u64,
    /// Bytes of them that were not held before.
    pub new_bytes: u64,
    /// What those take in the library, compressed.
    pub stored_bytes: u64,
    /// `bytes` to one byte that was new; null if none was.
    pub dedup_ratio: Option<f64>,
    /// New bytes to one byte stored; null if none was.
    pub compression_ratio: Option<f64>,
    /// Versions that went, by the package's retention.
    pub removed_versions: Vec<u64>,
    /// How long it took.
    pub seconds: f64,
    /// What it is a snapshot of, if the package mirrors an upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<MirroredView>,
}

/// A content that was revoked, and where it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "digest": "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    "reason": "CVE-2026-0001",
    "places": [{"package": "docs", "version": 2, "path": "a/readme.txt"}], "total": 1,
    "unknown": []
}))]
pub struct RevocationView {
    /// The content.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Why.
    pub reason: String,
    /// Where it was; a thousand places at most.
    pub places: Vec<HoldingView>,
    /// How many places there were.
    pub total: u64,
    /// Versions whose manifest is damaged, so that nobody knows whether they have it.
    pub unknown: Vec<String>,
}

/// A place where a content is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"package": "docs", "version": 2, "path": "a/readme.txt"}))]
pub struct HoldingView {
    /// The package.
    #[schema(value_type = String)]
    pub package: PackageName,
    /// Its version.
    pub version: u64,
    /// The file.
    pub path: String,
}

/// One page of the uploads under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UploadsView<U = UploadView> {
    /// The uploads, by id.
    pub items: Vec<U>,
    /// The cursor of the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Uploads that cannot be used any more, on every page; absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<UnreadableUploadView>,
}

/// An upload of which what is kept cannot be read. It stays until it is given up (`DELETE`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "0f3c2a7b1e0d4455a7b1e0d30199f0c2",
    "detail": "a newer depot wrote \"upload/0f3c2a7b1e0d4455a7b1e0d30199f0c2\" (format 2; this one reads 1)"
}))]
pub struct UnreadableUploadView {
    /// Its name.
    pub id: String,
    /// What is wrong with it.
    pub detail: String,
}

/// An upload under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "0f3c2a7b1e0d4455a7b1e0d30199f0c2", "package": "tools",
    "created": "2026-11-22T12:00:00Z", "expires": "2026-11-23T12:00:00Z",
    "received_bytes": 8388608, "stored_bytes": 3000000
}))]
pub struct UploadView {
    /// Its name.
    pub id: String,
    /// The package that it makes the next version of.
    #[schema(value_type = String)]
    pub package: PackageName,
    /// When it was begun.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it goes, if it is not used before.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Timestamp,
    /// Plain bytes of the chunks that were sent.
    pub received_bytes: u64,
    /// What they take as they were sent, compressed.
    pub stored_bytes: u64,
}
