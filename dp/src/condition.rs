//! Preconditions of a request (RFC 9110, section 13): whether the client already has what it asks
//! for, or holds an older state than it thinks.
//!
//! Entity tags are strong and name the bytes, so they decide. Dates are there for files of
//! packages, where mirrors compare them; a date matches only if it is the very one that was sent,
//! since a package can go back to older files.

use crate::range::{self, Wanted};
use http::Method;
use http::header::{
    HeaderMap, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};

/// What a representation is compared by.
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// The strong entity tag, quotes included.
    pub etag: &'a [u8],
    /// Seconds since 1970, if a `Last-Modified` is sent.
    pub modified: Option<i64>,
}

/// What the preconditions and the range of a request come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send this much.
    Send(Wanted),
    /// 304: the client has it.
    NotModified,
    /// 412: it is not what the client thinks.
    Failed,
}

/// Evaluates the headers of a `GET` or `HEAD` in the order of section 13.2.2.
pub fn evaluate(method: &Method, headers: &HeaderMap, has: Validators<'_>, size: u64) -> Verdict {
    if headers.contains_key(IF_MATCH) {
        if !any_matches(headers.get_all(IF_MATCH), has.etag, Compare::Strong) {
            return Verdict::Failed;
        }
    } else if let Some(since) = date(headers.get(IF_UNMODIFIED_SINCE))
        && has.modified.is_some_and(|modified| modified > since)
    {
        return Verdict::Failed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if any_matches(headers.get_all(IF_NONE_MATCH), has.etag, Compare::Weak) {
            return Verdict::NotModified;
        }
    } else if has.modified.is_some() && date(headers.get(IF_MODIFIED_SINCE)) == has.modified {
        return Verdict::NotModified;
    }
    // Section 14.2: ranges are defined for GET alone.
    let range = headers.get(RANGE).filter(|_| method == Method::GET);
    let Some(range) = range.and_then(|r| r.to_str().ok()) else {
        return Verdict::Send(Wanted::Whole);
    };
    match headers.get(IF_RANGE) {
        // A date is no strong validator here, so it never matches and the whole is sent.
        Some(tag) if tag.as_bytes().trim_ascii() != has.etag => Verdict::Send(Wanted::Whole),
        _ => Verdict::Send(range::parse(range, size)),
    }
}

/// Whether the request has any header that [`evaluate`] looks at.
pub fn is_plain(headers: &HeaderMap) -> bool {
    !headers.keys().any(|name| {
        name == RANGE
            || name == IF_NONE_MATCH
            || name == IF_MATCH
            || name == IF_RANGE
            || name == IF_MODIFIED_SINCE
            || name == IF_UNMODIFIED_SINCE
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Compare {
    Strong,
    Weak,
}

/// Section 8.8.3.2. Lines that are not lists of entity tags match nothing.
fn any_matches<'a>(
    lines: impl IntoIterator<Item = &'a HeaderValue>,
    etag: &[u8],
    compare: Compare,
) -> bool {
    lines.into_iter().any(|line| {
        let mut rest = line.as_bytes().trim_ascii();
        if rest == b"*" {
            return true;
        }
        while let Some((tag, weak, after)) = next_tag(rest) {
            if tag == etag && !(weak && compare == Compare::Strong) {
                return true;
            }
            rest = after;
        }
        false
    })
}

/// The first entity tag of a list with its quotes, whether it is weak, and what follows it.
fn next_tag(list: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let start = list.iter().position(|b| !matches!(b, b',' | b' ' | b'\t'))?;
    let list = &list[start..];
    let (weak, list) = match list.strip_prefix(b"W/") {
        Some(list) => (true, list),
        None => (false, list),
    };
    if list.first() != Some(&b'"') {
        return None;
    }
    let end = list[1..].iter().position(|&b| b == b'"')? + 2;
    Some((&list[..end], weak, &list[end..]))
}

/// A date header in any of the three forms of section 5.6.7, in seconds since 1970.
fn date(value: Option<&HeaderValue>) -> Option<i64> {
    let text = value?.to_str().ok()?.trim();
    let forms = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    let parsed = forms.iter().find_map(|form| jiff::civil::DateTime::strptime(form, text).ok())?;
    Some(parsed.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

/// Seconds since 1970 as the value of a date header; `None` for years that have no such form.
pub fn http_date(seconds: i64) -> Option<HeaderValue> {
    let time = jiff::Timestamp::from_second(seconds).ok()?.to_zoned(jiff::tz::TimeZone::UTC);
    if !(0..=9999).contains(&time.year()) {
        return None;
    }
    HeaderValue::try_from(time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETAG: &str = "\"blake3:00\"";

    fn verdict(headers: &[(&str, &str)]) -> Verdict {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
        }
        let has = Validators { etag: ETAG.as_bytes(), modified: Some(784_111_777) };
        evaluate(&Method::GET, &map, has, 10)
    }
    const WHOLE: Verdict = Verdict::Send(Wanted::Whole);

    #[test]
    fn a_tag_the_client_has_is_not_sent_again() {
        for list in
            [ETAG, "*", "\"a\", \"blake3:00\"", "W/\"blake3:00\"", "\"a,b\" ,W/\"blake3:00\""]
        {
            assert_eq!(verdict(&[("if-none-match", list)]), Verdict::NotModified, "{list}");
        }
        for list in ["\"a\"", "blake3:00", "", "\"blake3:00", "W/\"b\", x"] {
            assert_eq!(verdict(&[("if-none-match", list)]), WHOLE, "{list}");
        }
        let two_lines = [("if-none-match", "\"a\""), ("if-none-match", ETAG)];
        assert_eq!(verdict(&two_lines), Verdict::NotModified);
    }

    #[test]
    fn if_match_compares_strongly() {
        assert_eq!(verdict(&[("if-match", ETAG)]), WHOLE);
        assert_eq!(verdict(&[("if-match", "*")]), WHOLE);
        assert_eq!(verdict(&[("if-match", "W/\"blake3:00\"")]), Verdict::Failed);
        assert_eq!(verdict(&[("if-match", "\"a\"")]), Verdict::Failed);
    }

    #[test]
    fn a_range_is_cut_only_from_what_the_client_holds() {
        let range = ("range", "bytes=1-2");
        let cut = Verdict::Send(Wanted::One(1..3));
        assert_eq!(verdict(&[range]), cut);
        assert_eq!(verdict(&[range, ("if-range", ETAG)]), cut);
        for other in ["\"a\"", "W/\"blake3:00\"", "Sun, 06 Nov 1994 08:49:37 GMT"] {
            assert_eq!(verdict(&[range, ("if-range", other)]), WHOLE, "{other}");
        }
    }

    #[test]
    fn dates_match_in_all_three_forms_and_only_exactly() {
        for date in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(verdict(&[("if-modified-since", date)]), Verdict::NotModified, "{date}");
        }
        let later = "Sun, 06 Nov 1994 08:49:38 GMT";
        assert_eq!(verdict(&[("if-modified-since", later)]), WHOLE);
        assert_eq!(verdict(&[("if-unmodified-since", later)]), WHOLE);
        let earlier = "Sun, 06 Nov 1994 08:49:36 GMT";
        assert_eq!(verdict(&[("if-unmodified-since", earlier)]), Verdict::Failed);
        // A tag outranks a date.
        let both =
            [("if-none-match", "\"a\""), ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")];
        assert_eq!(verdict(&both), WHOLE);
    }

    #[test]
    fn dates_are_written_as_the_rfc_writes_them() {
        assert_eq!(http_date(784_111_777).unwrap(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(i64::MAX), None);
    }
}
