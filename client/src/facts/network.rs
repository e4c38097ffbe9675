//! The network addresses of a Linux machine, as the kernel lists them.
//!
//! Those by which others may reach it: not of the loopback, and none that holds on one link alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses in the text of `/proc/net/fib_trie`.
pub fn v4(fib_trie: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in fib_trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL"
            && let Some(address) = last.filter(|it| !it.is_loopback() && !it.is_link_local())
            && !found.contains(&IpAddr::V4(address))
        {
            found.push(IpAddr::V4(address));
        }
    }
    found
}

/// The addresses in the text of `/proc/net/if_inet6`.
pub fn v6(if_inet6: &str) -> Vec<IpAddr> {
    let of = |line: &str| {
        let digits = line.split_whitespace().next().filter(|digits| digits.len() == 32)?;
        let address = Ipv6Addr::from(u128::from_str_radix(digits, 16).ok()?);
        let is_of_link = address.segments()[0] & 0xffc0 == 0xfe80;
        (!address.is_loopback() && !is_of_link).then_some(IpAddr::V6(address))
    };
    if_inet6.lines().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIB: &str = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
        Local:\n        |-- 127.0.0.1\n           /32 host LOCAL\n        |-- 192.0.2.17\n           \
        /32 host LOCAL\n        |-- 192.0.2.255\n           /32 link BROADCAST\n        |-- 192.0.2.17\n           \
        /32 host LOCAL\n        |-- garbage\n           /32 host LOCAL\n";
    const INET6: &str = "00000000000000000000000000000001 01 80 10 80       lo\n\
        fe800000000000000042acfffe110002 02 40 20 80     eth0\n\
        20010db8000000000000000000000017 02 40 00 80     eth0\nshort 1\n";

    #[test]
    fn addresses_by_which_others_reach_it() {
        assert_eq!(v4(FIB), ["192.0.2.17".parse::<IpAddr>().unwrap()]);
        assert_eq!(v6(INET6), ["2001:db8::17".parse::<IpAddr>().unwrap()]);
    }
}
