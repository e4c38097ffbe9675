//! An RPM repository as a source of updates.
//!
//! One request tells whether anything is new: for `repomd.xml`, unless it is as it was. Only if its
//! bytes are others, and signed as they must be, the files that it lists are brought, and of these only
//! those that changed. Reading comes after all of them are there.

use super::catalogue::Reading;
use super::folder::{self, State};
use super::repomd::{self, Form, Listed, Repomd};
use super::settings::{Repository, RpmSettings};
use crate::adapter::{Adapter, Fetched, Read, Run, Said, Stage};
use crate::digests::{Algorithm, Digests, Hasher, to_hex};
use crate::error::{Cause, SyncError};
use crate::fetch::{Came, Validators, Wanted};
use crate::unpack::Packing;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::fs;

/// The longest signature, in bytes.
const MAX_SIGNATURE: u64 = 64 << 10;

/// A source that reads one repository.
#[derive(Clone, Debug)]
pub struct RpmSource {
    repository: Repository,
}

impl RpmSource {
    /// One with these settings.
    ///
    /// # Errors
    /// They cannot work.
    pub fn new(settings: &RpmSettings) -> Result<Self, SyncError> {
        Ok(Self { repository: settings.try_into()? })
    }

    /// The repository it reads.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    async fn bring(&self, run: &Run, state: Option<State>) -> Result<Fetched, SyncError> {
        run.stage(Stage::Connect)?;
        // A state whose files are gone is none.
        let held = state.and_then(|state| Some((state.open(run).ok()?, state)));
        let Some((new, document)) = self.ask(run, held.as_ref().map(|(_, state)| state)).await?
        else {
            return Ok(Fetched::Unchanged);
        };
        run.stage(Stage::Verify)?;
        let text = std::str::from_utf8(&document).map_err(|error| {
            SyncError::because(Cause::Malformed, "repomd.xml is no text", error)
        })?;
        let signature = self.signature(run).await?;
        let is_signed = self.is_signed(run, &document, signature.as_ref())?;
        let repomd = Repomd::parse(text).map_err(|error| error.told("repomd.xml"))?;
        let new = State { newest: repomd.newest(), ..new };
        if let Some((_, held)) =
            held.as_ref().filter(|(_, held)| is_signed && new.newest < held.newest)
        {
            // Unsigned, it would be no proof: whoever can replay can also write another date.
            let detail = format!(
                "repomd.xml is older than what was read before: made at {} s, after one of {} s since 1970",
                new.newest, held.newest
            );
            return Err(SyncError::new(Cause::Replayed, detail));
        }
        run.stage(Stage::Fetch)?;
        for (listed, _) in needed(&repomd)? {
            folder::bring(run, &self.repository, listed).await?;
        }
        let keep = || {
            if let Some(signature) = &signature {
                fs::write(new.signature_path(run), signature)?;
            }
            fs::rename(run.file(folder::INCOMING), new.repomd_path(run))
        };
        keep().map_err(|error| SyncError::local(run.folder.display(), error))?;
        new.make_newest(run)?;
        let mut all = vec![(&new, &repomd)];
        all.extend(held.as_ref().map(|(repomd, state)| (state, repomd)));
        if let Err(error) = folder::tidy(run, &all) {
            tracing::warn!(%error, folder = %run.folder.display(), "old files were left");
        }
        Ok(Fetched::Changed)
    }

    /// A `repomd.xml` that is not the one held, if there is one.
    async fn ask(
        &self,
        run: &Run,
        held: Option<&State>,
    ) -> Result<Option<(State, Bytes)>, SyncError> {
        let (url, to) = (self.repository.address(repomd::PATH)?, run.file(folder::INCOMING));
        let wanted = Wanted {
            url: &url,
            to: &to,
            most: repomd::MAX_SIZE,
            size: None,
            digests: &Digests::default(),
            since: held.map(|state| &state.validators).filter(|it| **it != Validators::default()),
        };
        let validators = match run.fetcher.file(wanted, &run.watch).await? {
            Came::File { validators, .. } => validators,
            Came::NotModified | Came::Held => return Ok(None),
        };
        let document = fs::read(&to).map_err(|error| SyncError::local(to.display(), error))?;
        let repomd = sha256(&document);
        if held.is_some_and(|state| state.repomd == repomd) {
            return Ok(None);
        }
        Ok(Some((State { repomd, validators, newest: 0 }, document.into())))
    }

    /// The signature beside it, if there is one. It is kept for mirrors also where no keyring is.
    async fn signature(&self, run: &Run) -> Result<Option<Bytes>, SyncError> {
        let url = self.repository.address(repomd::SIGNATURE_PATH)?;
        match run.fetcher.bytes(&url, MAX_SIGNATURE, &run.watch).await {
            Ok(signature) => Ok(Some(signature)),
            // Stores of objects refuse what they do not have.
            Err(error) if matches!(error.cause, Cause::NotFound | Cause::Refused) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether it is signed by a key of the keyring; an error where it must be, or where it is wrong.
    fn is_signed(
        &self,
        run: &Run,
        document: &[u8],
        signature: Option<&Bytes>,
    ) -> Result<bool, SyncError> {
        let Some(keyring) = &self.repository.keyring else { return Ok(false) };
        match signature {
            Some(signature) => {
                let signer = keyring.signer_of(document, signature, run.now);
                signer.map(|_| true).map_err(|error| error.of("repomd.xml"))
            }
            None if self.repository.must_be_signed => Err(SyncError::new(
                Cause::BadSignature,
                format!("{} has no {}", self.repository.base, repomd::SIGNATURE_PATH),
            )),
            None => Ok(false),
        }
    }
}

impl Adapter for RpmSource {
    fn fetch<'a>(
        &'a self,
        run: &'a Run,
        state: Option<&'a serde_json::Value>,
    ) -> BoxFuture<'a, Result<Fetched, SyncError>> {
        self.bring(run, State::of(state)).boxed()
    }

    fn read(
        &self,
        run: &Run,
        _state: Option<&serde_json::Value>,
        take: &mut dyn FnMut(Said) -> Result<(), SyncError>,
    ) -> Result<Read, SyncError> {
        run.stage(Stage::Parse)?;
        let state = State::newest(run)?;
        let repomd = state.open(run)?;
        let skipped = Reading::new(run, &self.repository, &repomd)?.say(take)?;
        let state = serde_json::to_value(&state).map_err(std::io::Error::other);
        let state = state.map_err(|error| SyncError::local("the source's state", error))?;
        Ok(Read { extent: crate::adapter::Extent::Whole, state, skipped })
    }
}

/// The files of a repository that updates are read from.
pub(super) fn needed(repomd: &Repomd) -> Result<Vec<(&Listed, Packing)>, SyncError> {
    let mut all = Vec::new();
    for (kind, must) in [("primary", true), ("updateinfo", false), ("modules", false)] {
        match repomd.form(kind) {
            Some(Form::Readable(listed, packing)) => all.push((listed, packing)),
            Some(Form::Unreadable(end)) => {
                let detail =
                    format!("{kind} is there as {end} only; want xml, or xml as gz, xz or zst");
                return Err(SyncError::new(Cause::Unsupported, detail));
            }
            None if must => {
                let detail = format!("repomd.xml lists no {kind}; its database form is not read");
                return Err(SyncError::new(Cause::Unsupported, detail));
            }
            None => {}
        }
    }
    Ok(all)
}

fn sha256(bytes: &[u8]) -> String {
    let mut hasher = Hasher::new([Algorithm::Sha256]);
    hasher.update(bytes);
    let (_, found) = hasher.finish();
    found.get(Algorithm::Sha256).map_or_else(|| to_hex(&[]), Into::into)
}
