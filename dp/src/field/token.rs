//! The token that a machine joins with: one line that says where the site is, how to know it, and
//! the secret that lets one machine in, once.
//!
//! `depotjoin1` and hex digits: SHA-256 of the authority's certificate (32 bytes), the secret (16
//! bytes), the site's addresses in UTF-8, separated by spaces, then the first 4 bytes of BLAKE3 of all
//! these: a token that lost its end would else send the machine to another address.

use std::fmt;
use std::str::FromStr;

const PREFIX: &str = "depotjoin1";
/// The longest token, in bytes of text.
const MAX_TOKEN: usize = 4096;
/// How many bytes of the hash tell that the rest is all there.
const CHECK: usize = 4;

/// A token to join a site with. `Debug` does not show the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the site's authority (its certificate in DER).
    pub authority: [u8; 32],
    /// Lets one machine in.
    pub secret: [u8; 16],
    /// Where the site can be reached: `https://HOST:PORT`, at least one.
    pub sites: Vec<String>,
}

/// Text that is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no join token, or not all of it")]
pub struct BadJoinToken;

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("sites", &self.sites).finish_non_exhaustive()
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sites = self.sites.join(" ");
        let bytes = [&self.authority[..], &self.secret, sites.as_bytes()].concat();
        f.write_str(PREFIX)?;
        bytes.iter().chain(&check(&bytes)).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for JoinToken {
    type Err = BadJoinToken;
    fn from_str(text: &str) -> Result<Self, BadJoinToken> {
        let hex = text.trim().strip_prefix(PREFIX).ok_or(BadJoinToken)?;
        if hex.len() > MAX_TOKEN || !hex.len().is_multiple_of(2) {
            return Err(BadJoinToken);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|d| d as u8);
        let pairs = hex.as_bytes().chunks_exact(2);
        let bytes: Option<Vec<u8>> =
            pairs.map(|p| Some(digit(p[0])? << 4 | digit(p[1])?)).collect();
        let bytes = bytes.ok_or(BadJoinToken)?;
        let (bytes, its) = bytes.split_last_chunk().ok_or(BadJoinToken)?;
        if check(bytes) != *its {
            return Err(BadJoinToken);
        }
        let (authority, rest) = bytes.split_first_chunk().ok_or(BadJoinToken)?;
        let (secret, sites) = rest.split_first_chunk().ok_or(BadJoinToken)?;
        let sites = std::str::from_utf8(sites).map_err(|_| BadJoinToken)?;
        let sites: Vec<String> = sites.split(' ').map(str::to_owned).collect();
        if !sites.iter().all(|site| site.starts_with("https://")) {
            return Err(BadJoinToken);
        }
        Ok(Self { authority: *authority, secret: *secret, sites })
    }
}

/// What follows `bytes` in a token.
fn check(bytes: &[u8]) -> [u8; CHECK] {
    let hash = blake3::hash(bytes);
    *hash.as_bytes().first_chunk().expect("a hash is longer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_hides_its_secret() {
        let token = JoinToken {
            authority: [7; 32],
            secret: [0xab; 16],
            sites: vec!["https://127.0.0.1:8520".into(), "https://site.example:8520".into()],
        };
        let text = token.to_string();
        assert_eq!(format!(" {text}\n").parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains("171") && !format!("{token:?}").contains("ab"));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let token =
            JoinToken { authority: [7; 32], secret: [1; 16], sites: vec!["https://h".into()] };
        let text = token.to_string();
        for cut in 0..text.len() {
            assert_eq!(text[..cut].parse::<JoinToken>(), Err(BadJoinToken), "cut at {cut}");
        }
        for at in PREFIX.len()..text.len() {
            let other = if text.as_bytes()[at] == b'0' { "1" } else { "0" };
            let wrong = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert_eq!(wrong.parse::<JoinToken>(), Err(BadJoinToken), "another digit at {at}");
        }
        for bad in ["", "depot_0", &format!("{text}g0"), &"depotjoin1".repeat(999)] {
            assert_eq!(bad.parse::<JoinToken>(), Err(BadJoinToken));
        }
    }
}
