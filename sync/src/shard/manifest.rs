//! The manifest lists pages, and pages list shards.
//!
//! Both are JSON. The manifest is small even of a large catalogue, and is all that a client asks for where nothing
//! changed; its site signs its text. A page is a blob.

use super::Platform;
use super::blob::{MAX_PLAIN, Name};
use super::cut::{self, Placed, place_of_prefix};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The version of the format that this program writes and reads.
pub const FORMAT: u32 = 1;
/// The longest manifest, in bytes.
pub const MAX_MANIFEST: usize = 16 << 20;
/// The most pages of a manifest.
pub const MAX_PAGES: usize = 100_000;
/// The longest page, in bytes: one of [`cut::MAX_THINGS`] shards is far shorter.
pub const MAX_PAGE: u64 = 1 << 20;
/// The longest name of a product or of a catalogue, in bytes.
const MAX_WORD: usize = 1_000;

/// What a site's catalogue is, in shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Which catalogue it is of: `seq` of two catalogues have nothing to do with each other.
    pub catalogue: String,
    /// The catalogue's place when it last was made into other shards.
    pub seq: u64,
    /// How many updates are in it.
    pub updates: u64,
    /// How many updates of the catalogue are left out, since they are larger than a client takes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
    /// Its pages, by platform, product and prefix.
    pub pages: Vec<Listed>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A page, as the manifest lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Which machines its updates are for.
    pub platform: Platform,
    /// Which product; none has the empty one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub product: String,
    /// The bits that the places of its updates begin with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// The page.
    #[serde(flatten)]
    pub part: Part,
}

/// A blob, with what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name.
    pub blob: Name,
    /// Its bytes, uncompressed.
    pub bytes: u64,
    /// How many updates are in it, or below it.
    pub updates: u64,
}

/// A page: shards of one platform and product.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The shards, by prefix.
    pub shards: Vec<Shard>,
}

/// A shard, as its page lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// The bits that the places of its updates begin with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub prefix: String,
    /// The shard.
    #[serde(flatten)]
    pub part: Part,
}

impl Placed for Shard {
    fn place(&self) -> u64 {
        place_of_prefix(&self.prefix).unwrap_or_default()
    }
    fn bytes(&self) -> u64 {
        0
    }
}

/// Why a manifest or a page is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadManifest {
    /// It is written in another format.
    #[error(
        "the catalogue is in format {0}, and this program reads format {FORMAT}: is one of the two older?"
    )]
    Format(u32),
    /// It is no JSON of one.
    #[error("it is not what a catalogue for clients looks like")]
    Json(#[from] serde_json::Error),
    /// Something of it cannot be.
    #[error("it is no catalogue for clients: {0}")]
    Form(&'static str),
}

impl Manifest {
    /// Its text, which is signed.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("it has text keys")
    }

    /// Reads one.
    ///
    /// # Errors
    /// It is none that this program reads.
    pub fn parse(text: &str) -> Result<Self, BadManifest> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        if text.len() > MAX_MANIFEST {
            return Err(BadManifest::Form("it is too long"));
        }
        // First, and by itself: the rest of a newer one may be anything.
        match serde_json::from_str::<Format>(text)?.format {
            FORMAT => {}
            other => return Err(BadManifest::Format(other)),
        }
        let manifest: Self = serde_json::from_str(text)?;
        if manifest.pages.len() > MAX_PAGES {
            return Err(BadManifest::Form("it has too many pages"));
        }
        let mut seen = BTreeSet::new();
        for page in &manifest.pages {
            if page.product.len() > MAX_WORD || manifest.catalogue.len() > MAX_WORD {
                return Err(BadManifest::Form("a name is too long"));
            }
            if place_of_prefix(&page.prefix).is_none() || page.part.bytes > MAX_PAGE {
                return Err(BadManifest::Form("a page is listed that cannot be"));
            }
            if !seen.insert((page.platform, &page.product, &page.prefix)) {
                return Err(BadManifest::Form("a page is listed twice"));
            }
        }
        Ok(manifest)
    }

    /// The pages that a machine of that platform needs.
    pub fn pages_for(&self, platform: Platform) -> impl Iterator<Item = &Listed> {
        let is_for = move |page: &&Listed| {
            matches!(page.platform, Platform::Any) || page.platform == platform
        };
        self.pages.iter().filter(is_for)
    }
}

impl Page {
    /// It as bytes: what its name is made of.
    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("it has text keys")
    }

    /// Reads one.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, BadManifest> {
        let page: Self = serde_json::from_slice(bytes)?;
        if page.shards.len() > cut::MAX_THINGS {
            return Err(BadManifest::Form("a page has too many shards"));
        }
        let is_sound = |shard: &Shard| {
            place_of_prefix(&shard.prefix).is_some() && shard.part.bytes <= MAX_PLAIN
        };
        if !page.shards.iter().all(is_sound) {
            return Err(BadManifest::Form("a shard is listed that cannot be"));
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let part = Part { blob: Name::of(b"x"), bytes: 7, updates: 1 };
        let listed = |platform, prefix: &str| Listed {
            platform,
            product: "debian-12".into(),
            prefix: prefix.into(),
            part,
        };
        let pages = vec![listed(Platform::Dpkg, "0"), listed(Platform::Any, "")];
        let catalogue = "c".into();
        Manifest { format: FORMAT, catalogue, seq: 9, updates: 2, left_out: 0, pages }
    }

    #[test]
    fn a_manifest_reads_back_and_says_what_each_machine_needs() {
        let made = manifest();
        assert_eq!(Manifest::parse(&made.text()).unwrap(), made);
        assert_eq!(made.pages_for(Platform::Dpkg).count(), 2);
        assert_eq!(made.pages_for(Platform::Rpm).count(), 1);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let text = manifest().text();
        for (from, to, why) in [
            ("\"format\":1", "\"format\":2", "format 2"),
            ("\"prefix\":\"0\"", "\"prefix\":\"x\"", "cannot be"),
            ("\"bytes\":7", "\"bytes\":70000000", "cannot be"),
            ("\"platform\":\"any\"", "\"platform\":\"dpkg\",\"prefix\":\"0\"", "twice"),
            ("\"pages\"", "\"page\"", "not what"),
        ] {
            let told = Manifest::parse(&text.replace(from, to)).unwrap_err().to_string();
            assert!(told.contains(why), "{told}");
        }
        let shard = Shard { prefix: "1".into(), part: manifest().pages[0].part };
        let page = Page { shards: vec![shard; cut::MAX_THINGS + 1] };
        assert!(Page::parse(&page.bytes()).is_err());
    }
}
