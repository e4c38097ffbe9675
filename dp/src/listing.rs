//! A folder of a package as a page for people, or as JSON for programs.
//!
//! Names are bytes: they are shown with escapes where they are not text, and linked to
//! percent-encoded, so that each entry can be reached whatever its name. Files on demand are listed beside
//! the others: whether one has come makes no difference to who reads a listing.

use crate::package::is_datable;
use crate::target::encode;
use packager::manifest::{Entry, FileEntry, Kind, Manifest};
use packager::on_demand::{OnDemand, Waiting};
use packager::path;
use std::fmt::Write;

/// One folder, as it was asked for.
pub(crate) struct Listing<'a> {
    pub package: &'a str,
    pub selector: &'a str,
    pub version: u64,
    /// The path that was asked for.
    pub at: &'a [u8],
    pub manifest: &'a Manifest,
    /// The version's files on demand.
    pub on_demand: Option<&'a OnDemand>,
    /// The folder that it leads to.
    pub folder: &'a [u8],
}

#[derive(serde::Serialize)]
struct Json<'a> {
    package: &'a str,
    version: u64,
    path: String,
    entries: Vec<JsonEntry>,
}

#[derive(serde::Serialize)]
struct JsonEntry {
    /// As text: control characters and bytes that are not UTF-8 as `\xHH`, a backslash as `\\`.
    name: String,
    /// Relative to the folder, percent-encoded.
    href: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// Octal.
    mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    modified: Option<String>,
}

/// A line of a listing.
struct Row<'a> {
    name: &'a [u8],
    kind: Kind<'a>,
    size: Option<u64>,
    digest: Option<String>,
    mode: u16,
    modified: Option<jiff::Timestamp>,
}

impl<'a> From<Entry<'a>> for Row<'a> {
    fn from(entry: Entry<'a>) -> Self {
        Self {
            name: entry.name(),
            kind: entry.kind,
            size: entry.file().map(|file| file.size),
            digest: entry.file().map(|file| file.digest.to_string()),
            mode: entry.mode,
            modified: time(entry.mtime),
        }
    }
}

impl<'a> Row<'a> {
    fn on_demand((name, file): (&'a [u8], Option<Waiting<'a>>)) -> Self {
        let (kind, mode) = match file {
            // The digest is not known by which it would be named, nor is it shown.
            Some(file) => {
                let digest = contentlib::Digest::EMPTY;
                (Kind::File(FileEntry { size: file.size, digest, recipe: None }), 0o644)
            }
            None => (Kind::Folder, 0o755),
        };
        let size = file.map(|file| file.size);
        let digest = file.map(|file| file.name().to_string());
        Self { name, kind, size, digest, mode, modified: None }
    }
}

impl Listing<'_> {
    /// What lies in the folder, in the order of the names.
    fn rows(&self) -> Vec<Row<'_>> {
        let entries = self.manifest.children(self.folder).into_iter().flatten();
        let mut rows: Vec<Row<'_>> = entries.map(Row::from).collect();
        let Some(list) = self.on_demand else { return rows };
        rows.extend(list.children(self.folder).into_iter().map(Row::on_demand));
        // Of the same name, what is there comes first and stays.
        rows.sort_by(|a, b| a.name.cmp(b.name));
        rows.dedup_by(|a, b| a.name == b.name);
        rows
    }

    pub fn json(&self) -> Vec<u8> {
        let entry = |row: Row<'_>| JsonEntry {
            name: path::Shown(row.name).to_string(),
            href: href(&row),
            kind: match row.kind {
                Kind::Folder => "folder",
                Kind::Link { .. } => "link",
                Kind::File(_) => "file",
            },
            size: row.size,
            digest: row.digest,
            target: match row.kind {
                Kind::Link { target } => Some(path::Shown(target).to_string()),
                _ => None,
            },
            mode: format!("{:04o}", row.mode),
            modified: row.modified.map(|time| time.to_string()),
        };
        let listing = Json {
            package: self.package,
            version: self.version,
            path: path::Shown(self.at).to_string(),
            entries: self.rows().into_iter().map(entry).collect(),
        };
        serde_json::to_vec(&listing).expect("text and numbers are JSON")
    }

    pub fn html(&self) -> Vec<u8> {
        let mut out = String::with_capacity(4 << 10);
        let at = path::Shown(self.at).to_string();
        let (package, version) = (Escaped(self.package), self.version);
        let written = writeln!(
            out,
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width\">\
             <title>{package}/{at}</title><style>{STYLE}</style></head><body>\
             <h1>{crumbs}</h1><p>version {version} of {package}</p><table>\
             <tr><th>Name<th class=\"n\">Size<th>Modified</tr>",
            at = Escaped(&at),
            crumbs = self.crumbs(),
        );
        written.expect("writing to a string does not fail");
        if !self.at.is_empty() {
            out.push_str("<tr><td><a href=\"../\">../</a><td><td></tr>\n");
        }
        // Folders first, as file managers have it.
        let (folders, others): (Vec<_>, Vec<_>) =
            self.rows().into_iter().partition(|row| row.kind == Kind::Folder);
        folders.iter().chain(&others).for_each(|row| self.row(&mut out, row));
        out.push_str("</table></body></html>\n");
        out.into_bytes()
    }

    fn row(&self, out: &mut String, row: &Row<'_>) {
        let mut name = path::Shown(row.name).to_string();
        let mut after = String::new();
        match row.kind {
            Kind::Folder => name.push('/'),
            Kind::Link { target } => after = format!(" → {}", path::Shown(target)),
            Kind::File(_) => {}
        }
        let size = row.size.map(people_size).unwrap_or_default();
        let modified = row.modified.map(|time| time.strftime("%Y-%m-%d %H:%M").to_string());
        let written = writeln!(
            out,
            "<tr><td><a href=\"{}\">{}</a>{}<td class=\"n\">{size}<td>{}</tr>",
            Escaped(&href(row)),
            Escaped(&name),
            Escaped(&after),
            modified.unwrap_or_default(),
        );
        written.expect("writing to a string does not fail");
    }

    /// The path, each folder above a link.
    fn crumbs(&self) -> String {
        let names: Vec<&[u8]> = match self.at {
            b"" => vec![],
            at => at.split(|&b| b == b'/').collect(),
        };
        let up = |levels: usize| if levels == 0 { "./".to_owned() } else { "../".repeat(levels) };
        let top = format!("{}/{}", self.package, self.selector);
        let mut out = format!("<a href=\"{}\">{}</a>/", up(names.len()), Escaped(&top));
        for (at, name) in names.iter().enumerate() {
            let (to, name) = (up(names.len() - at - 1), path::Shown(name).to_string());
            write!(out, "<a href=\"{to}\">{}</a>/", Escaped(&name))
                .expect("writing to a string does not fail");
        }
        out
    }
}

const STYLE: &str = ":root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;\
    margin:2rem auto;padding:0 1rem}h1{font-size:1.2rem;overflow-wrap:anywhere}p{opacity:.7}\
    table{border-collapse:collapse;width:100%}th{text-align:left;font-weight:600}\
    td,th{padding:.2rem .8rem .2rem 0;border-bottom:1px solid #8883;vertical-align:top}\
    td:first-child{overflow-wrap:anywhere}.n{text-align:right}td+td{white-space:nowrap;\
    font-variant-numeric:tabular-nums}a{text-decoration:none}a:hover{text-decoration:underline}";

/// `./` in front keeps a name with a colon from being read as a URL with a scheme.
fn href(row: &Row<'_>) -> String {
    let slash = if row.kind == Kind::Folder { "/" } else { "" };
    format!("./{}{slash}", encode(row.name))
}

fn time(mtime: i64) -> Option<jiff::Timestamp> {
    let second = jiff::Timestamp::from_second(mtime.div_euclid(1_000_000_000)).ok()?;
    is_datable(mtime).then_some(second)
}

fn people_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 999.5 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    let digits = if size < 9.95 { 1 } else { 0 };
    format!("{size:.digits$} {}", UNITS[unit])
}

/// Text inside HTML, in elements and in quoted attributes.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use contentlib::Digest;
    use packager::manifest::ManifestBuilder;

    fn odd_tree() -> Manifest {
        let mut builder = ManifestBuilder::default();
        let content = FileEntry { size: 2048, digest: Digest::of(b"x"), recipe: None };
        let file = Kind::File(content);
        for (path, kind, mode) in [
            (&b"<b>&\"'"[..], file, 0o644),
            (b"a:b", file, 0o644),
            (b"dir", Kind::Folder, 0o755),
            (b"dir/x", file, 0o644),
            (b"link", Kind::Link { target: b"<t>" }, 0o777),
            (b"new\nline", file, 0o644),
            (b"\xff", file, 0o644),
        ] {
            builder.push(Entry { path, mode, mtime: 784_111_777_000_000_000, kind }).unwrap();
        }
        builder.finish()
    }

    fn listing<'a>(manifest: &'a Manifest, at: &'a [u8]) -> Listing<'a> {
        let on_demand = None;
        Listing {
            package: "docs",
            selector: "latest",
            version: 2,
            at,
            manifest,
            on_demand,
            folder: at,
        }
    }

    #[test]
    fn a_page_has_every_entry_escaped() {
        let tree = odd_tree();
        let page = String::from_utf8(listing(&tree, b"").html()).unwrap();
        for want in [
            "<a href=\"./%3Cb%3E%26%22%27\">&lt;b&gt;&amp;&quot;&#39;</a><td class=\"n\">2.0 KiB",
            "<a href=\"./a%3Ab\">a:b</a>",
            "<a href=\"./dir/\">dir/</a>",
            "link</a> → &lt;t&gt;",
            r#"<a href="./new%0Aline">new\x0aline</a>"#,
            r#"<a href="./%FF">\xff</a>"#,
            "1994-11-06 08:49",
        ] {
            assert!(page.contains(want), "{want} in {page}");
        }
        assert!(!page.contains("../"), "the top folder has no parent here");
        let below = String::from_utf8(listing(&tree, b"dir").html()).unwrap();
        assert!(below.contains("<a href=\"../\">../</a>"));
    }

    #[test]
    fn json_has_every_entry() {
        let tree = odd_tree();
        let found: serde_json::Value = serde_json::from_slice(&listing(&tree, b"").json()).unwrap();
        assert_eq!(found["version"], 2);
        let entries = found["entries"].as_array().unwrap();
        assert_eq!(entries.len(), 6);
        assert_eq!(entries[2]["type"], "folder");
        assert_eq!(entries[3]["target"], "<t>");
        assert_eq!(entries[5]["href"], "./%FF");
        assert_eq!(entries[5]["name"], r"\xff");
        assert_eq!(entries[0]["size"], 2048);
        assert_eq!(entries[0]["modified"], "1994-11-06T08:49:37Z");
    }

    #[test]
    fn sizes_are_short() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1 << 20, "1.0 MiB"),
            (15 << 30, "15 GiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(people_size(bytes), text);
        }
    }
}
