//! Who is managed by a site: the machines of its fleet.

use super::{BadPointId, PointId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Names a client: the 128 bits that it chose for itself when its agent was installed, written as those of
/// a point.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(PointId);

impl ClientId {
    /// The id of these bits.
    pub fn from_bits(bits: u128) -> Self {
        Self(PointId::from_random(bits))
    }

    /// The 32 digits.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Its bits.
    pub fn bits(&self) -> u128 {
        u128::from_str_radix(self.as_str(), 16).expect("it is 32 hexadecimal digits")
    }
}

impl FromStr for ClientId {
    type Err = BadPointId;
    fn from_str(text: &str) -> Result<Self, BadPointId> {
        text.parse().map(Self)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_gives_its_bits_back() {
        for bits in [0, 1, u128::MAX, 0x0f3c_2a7b_1e0d_4455_a7b1_e0d3_0199_f0c2] {
            let id = ClientId::from_bits(bits);
            assert_eq!((id.bits(), id.as_str().len()), (bits, 32));
            assert_eq!(id.as_str().parse(), Ok(id.clone()));
        }
    }
}
