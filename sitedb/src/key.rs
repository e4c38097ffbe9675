//! Keys as bytes that sort as the values do.
//!
//! A scan walks keys in byte order, so the order of the encoding is part of each table's
//! interface: numbers are big-endian, text is escaped and terminated so that a prefix sorts before
//! what extends it and a tuple sorts by its first part, then its second. (The escaping is close to
//! that of FoundationDB's tuple layer: a zero byte becomes `00 FF`, the end is `00 01`.)

/// A type whose encoding sorts as it does.
///
/// * `a < b` if and only if `a`'s bytes sort before `b`'s;
/// * no encoding is a proper prefix of another one of the same type, so keys can be joined;
/// * `take` of what `put` wrote gives the value back and leaves the rest.
pub trait Key: Sized {
    /// Appends the encoding.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads one key from the front of `bytes`; `None` if it is not one.
    fn take(bytes: &mut &[u8]) -> Option<Self>;
}

macro_rules! number_keys {
    ($($number:ty),*) => {$(
        impl Key for $number {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
            fn take(bytes: &mut &[u8]) -> Option<Self> {
                let (first, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(<$number>::from_be_bytes(*first))
            }
        }
    )*};
}
number_keys!(u8, u16, u32, u64, u128);

impl<const N: usize> Key for [u8; N] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(*first)
    }
}

impl Key for () {
    fn put(&self, _: &mut Vec<u8>) {}
    fn take(_: &mut &[u8]) -> Option<Self> {
        Some(())
    }
}

impl Key for String {
    fn put(&self, out: &mut Vec<u8>) {
        for &byte in self.as_bytes() {
            out.push(byte);
            if byte == 0 {
                out.push(0xff);
            }
        }
        out.extend_from_slice(&[0, 1]);
    }
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        let mut text = Vec::new();
        loop {
            let (&byte, rest) = bytes.split_first()?;
            *bytes = rest;
            if byte != 0 {
                text.push(byte);
                continue;
            }
            let (&mark, rest) = bytes.split_first()?;
            *bytes = rest;
            match mark {
                0xff => text.push(0),
                1 => return String::from_utf8(text).ok(),
                _ => return None,
            }
        }
    }
}

impl<A: Key, B: Key> Key for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::take(bytes)?, B::take(bytes)?))
    }
}

/// The encoding of one key.
pub(crate) fn encoded<K: Key>(key: &K) -> Vec<u8> {
    let mut out = Vec::new();
    key.put(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keeps_the_contract<K: Key + Ord + Clone + std::fmt::Debug>(a: &K, b: &K) {
        let (x, y) = (encoded(a), encoded(b));
        assert_eq!(a.cmp(b), x.cmp(&y));
        if a != b {
            assert!(!x.starts_with(&y) && !y.starts_with(&x), "{a:?} {b:?}");
        }
        let joined = [x, y].concat();
        let mut rest = joined.as_slice();
        assert_eq!(K::take(&mut rest).as_ref(), Some(a));
        assert_eq!(K::take(&mut rest).as_ref(), Some(b));
        assert!(rest.is_empty());
    }

    proptest! {
        #[test]
        fn numbers_sort(a: u64, b: u64) {
            keeps_the_contract(&a, &b);
        }

        #[test]
        fn text_sorts(a in "[\\x00\\x01a-c\u{ff}]{0,6}", b in "[\\x00\\x01a-c\u{ff}]{0,6}") {
            keeps_the_contract(&a, &b);
        }

        #[test]
        fn tuples_sort(a in ("[\\x00a-b]{0,3}", any::<u16>()), b in ("[\\x00a-b]{0,3}", any::<u16>())) {
            keeps_the_contract(&a, &b);
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let _ = <(String, u64)>::take(&mut bytes.as_slice());
        }
    }
}
