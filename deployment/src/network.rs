//! Networks: the addresses that begin alike.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A network in CIDR notation, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its first address: what is behind the prefix is zero.
    first: IpAddr,
    /// How many bits all its addresses share.
    prefix: u8,
}

/// Text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network; want one as 10.1.0.0/16, 2001:db8::/32, or an address")]
pub struct NotANetwork(String);

impl Network {
    /// Whether an address is in it. An IPv4 address is the same inside of an IPv6 one.
    pub fn contains(&self, address: IpAddr) -> bool {
        masked(address.to_canonical(), self.prefix) == Some(self.first)
    }
}

fn masked(address: IpAddr, prefix: u8) -> Option<IpAddr> {
    let kept = |bits: u8| 128_u8.checked_sub(bits).map(|zero| u128::MAX.checked_shl(zero.into()));
    Some(match address {
        IpAddr::V4(it) => {
            let zero = 32_u8.checked_sub(prefix)?;
            let mask = u32::MAX.checked_shl(zero.into()).unwrap_or(0);
            IpAddr::V4((it.to_bits() & mask).into())
        }
        IpAddr::V6(it) => IpAddr::V6((it.to_bits() & kept(prefix)?.unwrap_or(0)).into()),
    })
}

impl FromStr for Network {
    type Err = NotANetwork;
    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let wrong = || NotANetwork(text.chars().take(60).collect());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let address = address.to_canonical();
        let prefix = match prefix {
            Some(digits) => digits.parse().map_err(|_| wrong())?,
            None => {
                if address.is_ipv4() {
                    32
                } else {
                    128
                }
            }
        };
        let first = masked(address, prefix).filter(|first| *first == address);
        first.map(|first| Self { first, prefix }).ok_or_else(wrong)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_the_networks_that_they_begin_as() {
        for (network, address, is_in) in [
            ("10.1.0.0/16", "10.1.255.255", true),
            ("10.1.0.0/16", "10.2.0.0", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "255.1.2.3", true),
            ("0.0.0.0/0", "::1", false),
            ("10.0.0.0/8", "::ffff:10.9.9.9", true),
            ("2001:db8::/32", "2001:db8:1::9", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("::/0", "fe80::1", true),
            ("::/0", "10.0.0.1", false),
        ] {
            let read: Network = network.parse().unwrap();
            assert_eq!(read.contains(address.parse().unwrap()), is_in, "{network} {address}");
            assert_eq!(read.to_string().parse(), Ok(read));
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for wrong in ["", "10.1.0.0/33", "10.1.0.1/16", "::/129", "10.0.0.0/", "a/8", "10.0.0/8"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
