//! Recorded files: by their whole path what is known of them.

use super::{Found, folded, is_within};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The files.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "Document")]
pub struct Files {
    files: BTreeMap<String, File>,
    whole: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Document {
    files: BTreeMap<String, File>,
    whole: Vec<String>,
}

/// A file, of which anything may be not recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct File {
    /// Its version, as `1.2.3.4`.
    pub version: Option<String>,
    /// Its bytes.
    pub size: Option<u64>,
    /// When it was made, as `2024-05-31T00:00:00`, in UTC.
    pub created: Option<String>,
    /// When it was changed last.
    pub modified: Option<String>,
    /// Its language, as 1033.
    pub language: Option<u32>,
}

impl From<Document> for Files {
    fn from(document: Document) -> Self {
        Self {
            files: document.files.into_iter().map(|(path, file)| (folded(&path), file)).collect(),
            whole: document.whole.iter().map(|path| folded(path)).collect(),
        }
    }
}

impl Files {
    /// The file of that path.
    pub fn get(&self, path: &str) -> Found<&File> {
        let path = folded(path);
        match self.files.get(&path) {
            Some(file) => Found::Here(file),
            None if self.whole.iter().any(|above| is_within(&path, above)) => Found::Absent,
            None => Found::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_absent_only_from_folders_that_were_recorded_whole() {
        let files: Files = serde_json::from_str(
            r#"{"files":{"C:\\A\\x.dll":{"version":"1.0.0.0"}},"whole":["C:\\A"]}"#,
        )
        .unwrap();
        assert!(matches!(files.get(r"c:\a\X.DLL"), Found::Here(_)));
        assert_eq!(files.get(r"C:\A\b\y.dll"), Found::Absent);
        assert_eq!(files.get(r"C:\AB\y.dll"), Found::Unknown);
    }
}
