//! The order of Debian versions: `[epoch:]upstream[-revision]`, as dpkg compares them.
//!
//! After Debian Policy, section 5.6.12: the epoch as a number, then upstream version and revision, each
//! as runs of non-digits and digits in turn. Among non-digits `~` comes before the end, the end before
//! letters, letters before all else. A missing revision equals `0`, which equals the empty one.

use std::cmp::Ordering;

/// How `a` compares with `b`; any two texts compare, also those that are no versions.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (Parts::of(a), Parts::of(b));
    let epochs = number(a.epoch.as_bytes(), b.epoch.as_bytes());
    epochs
        .then_with(|| part(a.upstream.as_bytes(), b.upstream.as_bytes()))
        .then_with(|| part(a.revision.as_bytes(), b.revision.as_bytes()))
}

/// Whether dpkg takes `text` as a version: a number as epoch, and only the characters that the policy
/// allows.
pub fn is_valid(text: &str) -> bool {
    let Parts { epoch, upstream, revision } = Parts::of(text);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'~');
    let in_upstream = |b: u8| plain(b) || matches!(b, b'-' | b':');
    // dpkg keeps the epoch in an int.
    let has_epoch = text.contains(':');
    let good_epoch = !has_epoch || epoch.parse::<i32>().is_ok_and(|epoch| epoch >= 0);
    good_epoch
        && upstream.bytes().next().is_some_and(|b| b.is_ascii_digit())
        && upstream.bytes().all(in_upstream)
        && !text.ends_with('-')
        && revision.bytes().all(plain)
}

struct Parts<'a> {
    epoch: &'a str,
    upstream: &'a str,
    revision: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Self {
        let (epoch, rest) = text.split_once(':').unwrap_or(("", text));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        Self { epoch, upstream, revision }
    }
}

fn part(a: &[u8], b: &[u8]) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (a_text, a_rest) = run(a, |b| !b.is_ascii_digit());
        let (b_text, b_rest) = run(b, |b| !b.is_ascii_digit());
        let texts = text(a_text, b_text);
        let (a_digits, a_rest) = run(a_rest, |b| b.is_ascii_digit());
        let (b_digits, b_rest) = run(b_rest, |b| b.is_ascii_digit());
        let order = texts.then_with(|| number(a_digits, b_digits));
        if order != Ordering::Equal || (a_rest.is_empty() && b_rest.is_empty()) {
            return order;
        }
        (a, b) = (a_rest, b_rest);
    }
}

fn run(bytes: &[u8], is_part: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|b| !is_part(*b)).unwrap_or(bytes.len());
    bytes.split_at(end)
}

/// Non-digits, character after character; the end counts as a character of its own.
fn text(a: &[u8], b: &[u8]) -> Ordering {
    let weight = |b: Option<&u8>| match b {
        Some(b'~') => -1,
        None => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(*letter),
        Some(other) => i32::from(*other) + 256,
    };
    let orders = (0..a.len().max(b.len())).map(|at| weight(a.get(at)).cmp(&weight(b.get(at))));
    orders.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// Digits as a number of any length.
fn number(a: &[u8], b: &[u8]) -> Ordering {
    let digits = |bytes| run(bytes, |b| b == b'0').1;
    let (a, b) = (digits(a), digits(b));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn known_orders_hold() {
        let rising =
            ["1.0~~", "1.0~", "1.0~rc1", "1.0", "1.0-1", "1.0+b1", "1.2", "1.10", "9.9", "1:0.1"];
        for pair in rising.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
        for (a, b) in [("1.0", "1.0-0"), ("0:1.0", "1.0"), ("1.00", "1.0"), ("1.0-00", "1.0-0")] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
        assert_eq!(compare("22.01+really26.02", "22.01"), Ordering::Greater);
        assert!(compare("1.0a", "1.0b").is_lt() && compare("1.0b", "1.0+").is_lt());
        assert!(is_valid("1:2.0-1") && !is_valid("a1") && !is_valid("1_0") && !is_valid("x:1"));
    }

    /// What `dpkg --compare-versions` says of many pairs, in one go.
    fn dpkg(pairs: &[(String, String)]) -> Vec<Ordering> {
        const SCRIPT: &str = r#"while read -r a b; do
            if dpkg --compare-versions "$a" lt "$b"; then echo lt
            elif dpkg --compare-versions "$a" eq "$b"; then echo eq
            else echo gt; fi; done"#;
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines: String = pairs.iter().map(|(a, b)| format!("{a} {b}\n")).collect();
        let mut input = shell.stdin.take().unwrap();
        let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
        let output = shell.wait_with_output().unwrap();
        writer.join().unwrap();
        let word = |line: &str| match line {
            "lt" => Ordering::Less,
            "eq" => Ordering::Equal,
            _ => Ordering::Greater,
        };
        String::from_utf8(output.stdout).unwrap().lines().map(word).collect()
    }

    fn version() -> impl Strategy<Value = String> {
        // Few characters, so that many pairs are nearly alike.
        let epoch = prop_oneof![4 => Just(String::new()), 1 => "0:|1:|00:|2:"];
        let revision = prop_oneof![1 => Just(String::new()), 3 => "-[0-1a+~.]{1,4}"];
        (epoch, "[0-9]", "[0-2ab+~.]{0,6}", revision)
            .prop_map(|(epoch, first, rest, revision)| format!("{epoch}{first}{rest}{revision}"))
    }

    proptest! {
        // Two processes a pair: few cases of many pairs.
        #![proptest_config(ProptestConfig { cases: 2, max_shrink_iters: 0, ..Default::default() })]

        #[test]
        fn the_order_is_that_of_dpkg(
            pairs in prop::collection::vec((version(), version()), 250),
        ) {
            for ((a, b), told) in pairs.iter().zip(dpkg(&pairs)) {
                prop_assert_eq!(compare(a, b), told, "{} {}", a, b);
                prop_assert!(is_valid(a), "{}", a);
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_an_order_of_any_texts(a in ".{0,12}", b in ".{0,12}", c in version()) {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&c, &c), Ordering::Equal);
            let _ = (is_valid(&a), compare(&a, &c));
        }
    }
}
