//! The recorded registry: keys by their whole path, and of each its values.
//!
//! A key that is listed is recorded with all its values. Whether one that is not listed is there is known only
//! below the keys that `whole` names; and of a listed one that the keys above it are there too.

use super::{Found, folded, is_within};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// The registry.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "Document")]
pub struct Registry {
    /// By key, both in lower case; of each key its name as it is written, and its values.
    keys: BTreeMap<String, BTreeMap<String, Value>>,
    whole: Vec<String>,
}

/// As it is written: `keys` by path such as `HKEY_LOCAL_MACHINE\SOFTWARE\Acme`, each with its values.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Document {
    keys: BTreeMap<String, BTreeMap<String, Value>>,
    whole: Vec<String>,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Value {
    /// As `REG_SZ`.
    pub r#type: String,
    /// A text, a number, a list of texts; bytes as hexadecimal digits.
    pub data: serde_json::Value,
}

impl Value {
    /// The text that it is, if it is one.
    pub fn text(&self) -> Option<&str> {
        matches!(&*self.r#type, "REG_SZ" | "REG_EXPAND_SZ").then(|| self.data.as_str()).flatten()
    }
}

impl From<Document> for Registry {
    fn from(document: Document) -> Self {
        let values = |values: BTreeMap<String, Value>| {
            values.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect()
        };
        Self {
            keys: document.keys.into_iter().map(|(key, all)| (folded(&key), values(all))).collect(),
            whole: document.whole.iter().map(|path| folded(path)).collect(),
        }
    }
}

impl Registry {
    /// Whether there is a key of that path.
    pub fn key(&self, path: &str) -> Found<()> {
        let path = folded(path);
        match self.keys.contains_key(&path) || self.below(&path).next().is_some() {
            true => Found::Here(()),
            false => self.silence(&path),
        }
    }

    /// The value of a key; the empty name is that of its default.
    pub fn value(&self, path: &str, name: &str) -> Found<&Value> {
        let path = folded(path);
        match self.keys.get(&path) {
            Some(values) => values.get(&name.to_lowercase()).map_or(Found::Absent, Found::Here),
            None => self.silence(&path),
        }
    }

    /// The keys right below a key, in lower case, and whether these are all.
    pub fn subkeys(&self, path: &str) -> (BTreeSet<String>, bool) {
        let path = folded(path);
        let child = |key: &str| {
            let end = key.get(path.len() + 1..)?.split('\\').next()?;
            Some(format!("{path}\\{end}"))
        };
        let children = self.below(&path).filter_map(child).collect();
        (children, self.is_whole(&path))
    }

    fn below<'a>(&'a self, path: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let prefix = format!("{path}\\");
        let from = self.keys.range(prefix.clone()..);
        from.map(|(key, _)| key.as_str()).take_while(move |key| key.starts_with(&prefix))
    }

    fn is_whole(&self, path: &str) -> bool {
        self.whole.iter().any(|above| is_within(path, above))
    }

    fn silence<T>(&self, path: &str) -> Found<T> {
        if self.is_whole(path) { Found::Absent } else { Found::Unknown }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_a_no_only_where_all_was_recorded() {
        let registry: Registry = serde_json::from_str(
            r#"{"keys":{"HKEY_LOCAL_MACHINE\\SOFTWARE\\Acme\\Tool":
                {"Version":{"type":"REG_SZ","data":"2.0"}}},
                "whole":["HKEY_LOCAL_MACHINE\\Software\\Acme\\"]}"#,
        )
        .unwrap();
        let tool = r"HKEY_LOCAL_MACHINE\software\acme\TOOL";
        assert_eq!(registry.key(tool), Found::Here(()));
        assert_eq!(registry.key(r"HKEY_LOCAL_MACHINE\SOFTWARE"), Found::Here(()));
        assert_eq!(registry.key(r"HKEY_LOCAL_MACHINE\SOFTWARE\Acme\Other"), Found::Absent);
        assert_eq!(registry.key(r"HKEY_LOCAL_MACHINE\SOFTWARE\Acme2"), Found::Unknown);
        let Found::Here(value) = registry.value(tool, "VERSION") else { panic!() };
        assert_eq!(value.text(), Some("2.0"));
        assert_eq!(registry.value(tool, "Other"), Found::Absent);
        assert_eq!(registry.value(r"HKEY_LOCAL_MACHINE\SOFTWARE", "x"), Found::Unknown);
        let (keys, is_all) = registry.subkeys(r"HKEY_LOCAL_MACHINE\SOFTWARE");
        assert_eq!((keys.len(), is_all), (1, false));
        assert!(registry.subkeys(r"HKEY_LOCAL_MACHINE\SOFTWARE\Acme").1);
    }
}
