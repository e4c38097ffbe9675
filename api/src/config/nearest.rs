//! Which known name a misspelt one was meant to be.

/// The name of `known` that needs the fewest edits to be `wrong`.
///
/// A dotted name also counts by its last part alone, for keys written outside their section.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known.into_iter().min_by_key(|name| {
        let last = name.rsplit('.').next().unwrap_or(name);
        edits(wrong, name).min(edits(wrong, last) + 1)
    })
}

/// Insertions, deletions and replacements that turn `a` into `b` (Levenshtein distance).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found() {
        let known = ["listen", "library.pack_size", "library.gc_grace", "jobs.keep"];
        assert_eq!(nearest("lisen", known), Some("listen"));
        assert_eq!(nearest("library.pack_sise", known), Some("library.pack_size"));
        assert_eq!(nearest("gc_grase", known), Some("library.gc_grace"));
        assert_eq!(nearest("x", []), None);
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
    }
}
