//! The packets that a keyring is made of, before they are read (RFC 9580, section 4.2).
//!
//! GnuPG writes what it thinks of a key between its packets, as trust packets. These are its own notes, never
//! signed, and no part of a key: to a reader they would end it where they stand.

/// Kinds of packets that are told apart here.
const SECRET_KEY: u8 = 5;
const PUBLIC_KEY: u8 = 6;
const SECRET_SUBKEY: u8 = 7;
const TRUST: u8 = 12;
const PUBLIC_SUBKEY: u8 = 14;

/// A keyring without trust packets, how many keys and subkeys it should give, and whether any is secret.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sifted {
    pub bytes: Vec<u8>,
    pub keys: usize,
    pub subkeys: usize,
    pub has_secret: bool,
}

/// Leaves out trust packets. From where it is no row of packets, all stays as it is.
pub(super) fn sift(bytes: &[u8]) -> Sifted {
    let mut sifted = Sifted::default();
    let mut rest = bytes;
    while let Some((tag, len)) = header(rest).filter(|(_, len)| *len <= rest.len()) {
        let (packet, after) = rest.split_at(len);
        match tag {
            TRUST => {}
            tag => {
                sifted.keys += usize::from(tag == PUBLIC_KEY);
                sifted.subkeys += usize::from(tag == PUBLIC_SUBKEY);
                sifted.has_secret |= matches!(tag, SECRET_KEY | SECRET_SUBKEY);
                sifted.bytes.extend_from_slice(packet);
            }
        }
        rest = after;
    }
    sifted.bytes.extend_from_slice(rest);
    sifted
}

/// What kind the first packet is of, and how long it is with its header; none, where it does not say.
pub(super) fn header(bytes: &[u8]) -> Option<(u8, usize)> {
    let (&first, rest) = bytes.split_first()?;
    let number = |n: usize| {
        let digits = rest.get(..n)?;
        Some(digits.iter().fold(0_usize, |sum, digit| sum << 8 | usize::from(*digit)))
    };
    let (tag, of_len, body) = match (first & 0x80 != 0, first & 0x40 != 0) {
        (false, _) => return None,
        (true, false) => {
            let n = match first & 3 {
                0 => 1,
                1 => 2,
                2 => 4,
                _ => return None,
            };
            (first >> 2 & 0xf, n, number(n)?)
        }
        (true, true) => {
            let tag = first & 0x3f;
            match *rest.first()? {
                len @ ..192 => (tag, 1, usize::from(len)),
                192..224 => (tag, 2, number(2)?.checked_sub(192 << 8)?.checked_add(192)?),
                // In parts: no keyring is.
                224..255 => return None,
                255 => {
                    let digits = rest.get(1..5)?;
                    let len = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
                    (tag, 5, len)
                }
            }
        }
    };
    Some((tag, body.checked_add(1 + of_len)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_packets_go_and_the_rest_stays() {
        let (key, long) =
            ([&[0x98, 2, 7, 7][..]].concat(), [&[0xce, 192, 8][..], &[9; 200]].concat());
        let trust = [&[0xb0, 2, 0, 3][..], &[0xcc, 1, 0], &[0xcc, 255, 0, 0, 0, 1, 0]];
        let all = [trust[0], &key[..], trust[1], &long[..], trust[2]].concat();
        let whole = [key, long].concat();
        assert_eq!(
            sift(&all),
            Sifted { bytes: whole.clone(), keys: 1, subkeys: 1, has_secret: false }
        );
        assert!(sift(&[0x94, 2, 7, 7]).has_secret && sift(&[0x9c, 2, 7, 7]).has_secret);
        for cut in 0..all.len() {
            sift(&all[..cut]);
        }
        assert_eq!(sift(b"no keys").bytes, b"no keys");
    }
}
