//! The client's address: from the connection, or from forwarding headers of a proxy that is trusted.
//!
//! **Invariant:** an untrusted peer's headers change nothing; what is stored is one address without port, bracket or quote,
//! truncated by the rule of its own family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::HeaderMap;
use http::header::FORWARDED;

use crate::config::IpPolicy;

/// Entries of forwarding headers that are looked at, from the right.
const MAX_HOPS: usize = 16;

/// An address or a network of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// Reads `10.0.0.0/8`, `fd00::/8` or one address.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address.parse().ok()?, Some(bits.parse().ok()?)),
            None => (text.parse().ok()?, None),
        };
        let most = width(address);
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Self { address, bits })
    }

    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shift = |address: IpAddr| bits_of(address).checked_shr(width(address) - self.bits).unwrap_or(0);
        width(address) == width(self.address) && shift(address) == shift(self.address)
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The client of a request: the peer, or, when the peer is trusted, the right-most forwarded address that is neither trusted
/// nor of a private network (those are further proxies); with only such ones, the left-most.
pub fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(peer) {
        return peer;
    }
    let mut client = peer;
    let hops = forwarded(headers);
    for hop in hops.iter().rev().take(MAX_HOPS) {
        // `unknown` or an obfuscated name: nothing behind it can be vouched for.
        let Some(address) = read(hop) else { break };
        client = address;
        if !is_trusted(address) && !is_private(address) {
            break;
        }
    }
    client
}

/// Entries of `X-Forwarded-For` and, without it, of `Forwarded`, in the order of the hops.
fn forwarded(headers: &HeaderMap) -> Vec<String> {
    let lists = |name: &str| -> Vec<String> {
        let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        texts.flat_map(|text| split_outside_quotes(text, ',')).collect()
    };
    let direct = lists("x-forwarded-for");
    if !direct.is_empty() {
        return direct;
    }
    let node = |element: String| {
        split_outside_quotes(&element, ';').into_iter().find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            name.trim().eq_ignore_ascii_case("for").then(|| value.trim().to_owned())
        })
    };
    lists(FORWARDED.as_str()).into_iter().filter_map(node).collect()
}

fn split_outside_quotes(text: &str, separator: char) -> Vec<String> {
    let mut quoted = false;
    let parts = text.split(move |c| {
        quoted ^= c == '"';
        c == separator && !quoted
    });
    parts.map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// Reads an address with or without quotes, brackets and port; mapped IPv4 becomes IPv4.
fn read(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"').trim();
    let address = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6))?;
    Some(address.to_canonical())
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified(),
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_unspecified()
        }
    }
}

/// What is kept of an address under a policy.
pub fn kept(address: IpAddr, policy: IpPolicy) -> Option<String> {
    let address = address.to_canonical();
    match (policy, address) {
        (IpPolicy::Drop, _) => None,
        (IpPolicy::Keep, address) => Some(address.to_string()),
        (IpPolicy::Truncate, IpAddr::V4(v4)) => {
            Some(Ipv4Addr::from_bits(v4.to_bits() & (!0 << 8)).to_string())
        }
        (IpPolicy::Truncate, IpAddr::V6(v6)) => {
            Some(Ipv6Addr::from_bits(v6.to_bits() & (!0 << 80)).to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn client_of(peer: &str, lines: &[(&str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let trusted = [Network::parse("127.0.0.0/8").unwrap()];
        client(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn a_trusted_proxys_headers_give_the_single_client_address() {
        for (lines, right) in [
            (vec![("x-forwarded-for", "\"[2001:db8::7]:51234\", 10.0.0.3")], "2001:db8::7"),
            (vec![("x-forwarded-for", "2001:db8::7")], "2001:db8::7"),
            (vec![("x-forwarded-for", "unknown, 203.0.113.9")], "203.0.113.9"),
            (
                vec![("forwarded", "for=\"[2001:db8:cafe::17]:4711\";proto=https, for=10.0.0.3")],
                "2001:db8:cafe::17",
            ),
            (
                vec![("x-forwarded-for", "198.51.100.4"), ("x-forwarded-for", "203.0.113.9, 10.1.1.1")],
                "203.0.113.9",
            ),
            (vec![("x-forwarded-for", "::ffff:203.0.113.9")], "203.0.113.9"),
            (vec![("x-forwarded-for", "203.0.113.9:4711")], "203.0.113.9"),
            (vec![("x-forwarded-for", "10.0.0.7, 10.0.0.3")], "10.0.0.7"),
            (vec![("x-forwarded-for", "203.0.113.9, unknown, 10.0.0.3")], "10.0.0.3"),
            (vec![], "127.0.0.1"),
        ] {
            assert_eq!(client_of("127.0.0.1", &lines), right, "{lines:?}");
        }
    }

    #[test]
    fn an_untrusted_peers_headers_are_ignored() {
        assert_eq!(client_of("198.51.100.1", &[("x-forwarded-for", "203.0.113.9")]), "198.51.100.1");
        assert_eq!(client_of("::ffff:198.51.100.1", &[("x-forwarded-for", "203.0.113.9")]), "198.51.100.1");
    }

    #[test]
    fn an_address_is_truncated_by_the_rule_of_its_family() {
        for (address, right) in [
            ("203.0.113.9", "203.0.113.0"),
            ("::ffff:203.0.113.9", "203.0.113.0"),
            ("2001:db8:1:2:3::7", "2001:db8:1::"),
        ] {
            assert_eq!(kept(address.parse().unwrap(), IpPolicy::Truncate).as_deref(), Some(right));
        }
        assert_eq!(kept("203.0.113.9".parse().unwrap(), IpPolicy::Drop), None);
        assert_eq!(kept("203.0.113.9".parse().unwrap(), IpPolicy::Keep).as_deref(), Some("203.0.113.9"));
    }

    #[test]
    fn networks_are_read_or_refused() {
        assert!(Network::parse("0.0.0.0/0").unwrap().contains("8.8.8.8".parse().unwrap()));
        assert!(!Network::parse("10.0.0.0/8").unwrap().contains("11.0.0.1".parse().unwrap()));
        assert!(!Network::parse("10.0.0.0/8").unwrap().contains("::1".parse().unwrap()));
        for text in ["10.0.0.0/33", "10.0.0/8", "x", "", "::/129"] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
    }
}
