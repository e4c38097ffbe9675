//! Where clients reach a point: from the address that it reported to one that a client can use.

use std::net::{IpAddr, SocketAddr};

/// The URL of the point that is reached at `address`: `http://HOST:PORT`, or `https:` if it says that
/// it takes no other. Nothing if that cannot be one of a machine: without host or port, or with an
/// address that stands for all.
pub fn base_url(address: &str) -> Option<String> {
    let (scheme, place) = address.split_once("://").unwrap_or(("http", address));
    if !matches!(scheme, "http" | "https") {
        return None;
    }
    let place = place.strip_suffix('/').unwrap_or(place);
    let authority: http::uri::Authority = place.parse().ok()?;
    let port = authority.port_u16().filter(|port| *port != 0)?;
    let host = authority.host();
    if host.is_empty() || authority.as_str().contains('@') {
        return None;
    }
    match place.parse::<SocketAddr>() {
        Ok(place) if place.ip().is_unspecified() => None,
        _ => Some(format!("{scheme}://{host}:{port}")),
    }
}

/// Whether a URL of [`base_url`] is reached from the same machine alone.
pub(super) fn is_loopback(base: &str) -> bool {
    let place = base.split_once("://").map_or(base, |(_, place)| place);
    match place.parse::<SocketAddr>() {
        Ok(place) => IpAddr::is_loopback(&place.ip().to_canonical()),
        Err(_) => place.starts_with("localhost:"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_url_or_none() {
        for (address, url) in [
            ("192.0.2.7:8520", "http://192.0.2.7:8520"),
            ("https://192.0.2.7:8520", "https://192.0.2.7:8520"),
            ("http://branch.example:80/", "http://branch.example:80"),
            ("[2001:db8::7]:80", "http://[2001:db8::7]:80"),
        ] {
            assert_eq!(base_url(address).as_deref(), Some(url));
        }
        for none in [
            "",
            "h",
            "h:0",
            ":80",
            "0.0.0.0:80",
            "[::]:80",
            "u@h:80",
            "h:80/x",
            "h:99999",
            "a b:1",
            "ftp://h:1",
        ] {
            assert_eq!(base_url(none), None, "{none}");
        }
        assert!(is_loopback("http://127.0.0.1:80") && is_loopback("http://[::1]:80"));
        assert!(is_loopback("http://localhost:80") && !is_loopback("http://192.0.2.7:80"));
    }
}
