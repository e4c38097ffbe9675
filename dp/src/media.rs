//! Media types by file name, for browsers that show what a package holds.

/// The media type of a file of this path; bytes where it is not clear.
pub(crate) fn type_of(path: &[u8]) -> &'static str {
    let name = packager::path::split(path).1;
    let Some(dot) = name.iter().rposition(|&b| b == b'.') else { return BYTES };
    let mut suffix = [0; 8];
    let Some(lower) = suffix.get_mut(..name.len() - dot - 1) else { return BYTES };
    lower.copy_from_slice(&name[dot + 1..]);
    lower.make_ascii_lowercase();
    match &*lower {
        b"html" | b"htm" => "text/html; charset=utf-8",
        b"txt" | b"log" | b"md" | b"conf" | b"cfg" | b"ini" | b"toml" | b"sh" | b"py" | b"rs"
        | b"c" | b"h" => "text/plain; charset=utf-8",
        b"css" => "text/css",
        b"csv" => "text/csv",
        b"js" | b"mjs" => "text/javascript",
        b"json" => "application/json",
        b"xml" => "application/xml",
        b"yaml" | b"yml" => "application/yaml",
        b"pdf" => "application/pdf",
        b"zip" => "application/zip",
        b"gz" | b"tgz" => "application/gzip",
        b"xz" => "application/x-xz",
        b"zst" => "application/zstd",
        b"bz2" => "application/x-bzip2",
        b"tar" => "application/x-tar",
        b"deb" => "application/vnd.debian.binary-package",
        b"rpm" => "application/x-rpm",
        b"cab" => "application/vnd.ms-cab-compressed",
        b"wasm" => "application/wasm",
        b"png" => "image/png",
        b"jpg" | b"jpeg" => "image/jpeg",
        b"gif" => "image/gif",
        b"webp" => "image/webp",
        b"svg" => "image/svg+xml",
        b"ico" => "image/vnd.microsoft.icon",
        b"woff2" => "font/woff2",
        b"mp4" => "video/mp4",
        _ => BYTES,
    }
}

const BYTES: &str = "application/octet-stream";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_suffix_counts_in_any_case() {
        assert_eq!(type_of(b"a/index.HTML"), "text/html; charset=utf-8");
        assert_eq!(type_of(b"a.html/b"), BYTES);
        assert_eq!(type_of(b"a.tar.gz"), "application/gzip");
        for other in [&b"a"[..], b"a.", b".very-long-suffix", b"", b"a.\xff"] {
            assert_eq!(type_of(other), BYTES);
        }
    }
}
