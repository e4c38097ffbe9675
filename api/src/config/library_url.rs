//! Where the content library is, if not in the data folder: `s3://BUCKET/PREFIX`.

use super::setting::{Raw, Setting};

/// The URL of a library on an object store; empty for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LibraryUrl(pub String);

/// How URLs of the stores begin that a library can be on.
const SCHEMES: [&str; 3] = ["s3://", "gs://", "az://"];
/// The longest, in bytes.
const MAX_URL: usize = 1024;

impl LibraryUrl {
    /// The URL, if there is one.
    pub fn get(&self) -> Option<&str> {
        (!self.0.is_empty()).then_some(self.0.as_str())
    }
}

impl Setting for LibraryUrl {
    const WANTED: &'static str =
        "s3://BUCKET/PREFIX without credentials (or gs:// or az://), or empty for the data folder";

    fn accept(raw: Raw<'_>) -> Option<Self> {
        let (Raw::Text(text) | Raw::Quoted(text)) = raw else { return None };
        let is_place = |scheme| {
            text.strip_prefix(scheme).is_some_and(|rest: &str| {
                !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['@', '?', '#'])
            })
        };
        let is_sound = text.len() <= MAX_URL && SCHEMES.into_iter().any(is_place);
        (text.is_empty() || is_sound).then(|| Self(text.to_owned()))
    }

    fn write(&self) -> String {
        self.0.clone()
    }

    /// A URL that is refused may have a secret in it, and is not shown.
    fn read(raw: Raw<'_>) -> Result<Self, String> {
        Self::accept(raw).ok_or_else(|| format!("must be {}", Self::WANTED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_on_a_store_or_nowhere_else() {
        for good in ["", "s3://bucket", "s3://bucket/a/b", "gs://b/c", "az://container/x"] {
            assert_eq!(LibraryUrl::read(Raw::Text(good)).unwrap().write(), good);
        }
        for bad in
            ["bucket", "s3://", "s3:///a", "file:///a", "s3://key:secret@b/a", "s3://b?k=secret"]
        {
            let error = LibraryUrl::read(Raw::Text(bad)).unwrap_err();
            assert!(error.contains("s3://BUCKET/PREFIX") && !error.contains("secret"), "{error}");
        }
        assert!(LibraryUrl::read(Raw::Integer(3)).is_err());
    }
}
