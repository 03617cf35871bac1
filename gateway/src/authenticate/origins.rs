//! Which pages may use a public key: patterns for origins.
//!
//! **Invariant:** an origin that is not understood matches nothing but `*`; ports and schemes are compared, not only hosts.

/// `https://shop.example`, `https://*.shop.example`, `http://localhost:*`, `*`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum OriginPattern {
    Any,
    Exact { scheme: String, host: HostPattern, port: PortPattern },
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum HostPattern {
    Is(String),
    Below(String),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum PortPattern {
    Any,
    Is(Option<u16>),
}

impl OriginPattern {
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let text = text.trim_end_matches('/').to_ascii_lowercase();
        let (scheme, host, port) = split_origin(&text)?;
        let host = match host.strip_prefix("*.") {
            Some(parent) if !parent.is_empty() && !parent.contains('*') => {
                HostPattern::Below(format!(".{parent}"))
            }
            None if !host.is_empty() && !host.contains('*') => HostPattern::Is(host.to_owned()),
            _ => return None,
        };
        let port = match port {
            Some("*") => PortPattern::Any,
            Some(port) => PortPattern::Is(Some(port.parse().ok()?)),
            None => PortPattern::Is(None),
        };
        Some(Self::Exact { scheme: scheme.to_owned(), host, port: with_default(scheme, port) })
    }

    pub(super) fn matches(&self, origin: &str) -> bool {
        let Self::Exact { scheme, host, port } = self else { return true };
        let origin = origin.to_ascii_lowercase();
        let Some((its_scheme, its_host, its_port)) = split_origin(&origin) else { return false };
        let its_port = match its_port.map(str::parse) {
            None => PortPattern::Is(None),
            Some(Ok(number)) => PortPattern::Is(Some(number)),
            Some(Err(_)) => return false,
        };
        let host_fits = match host {
            HostPattern::Is(host) => host == its_host,
            HostPattern::Below(parent) => {
                its_host.len() > parent.len() && its_host.ends_with(parent.as_str())
            }
        };
        scheme == its_scheme
            && host_fits
            && (*port == PortPattern::Any || *port == with_default(its_scheme, its_port))
    }
}

/// Scheme, host (IPv6 in brackets) and port of an origin.
fn split_origin(text: &str) -> Option<(&str, &str, Option<&str>)> {
    let (scheme, authority) = text.split_once("://")?;
    if scheme.is_empty() || authority.contains(['/', '@', '?', '#', ' ']) {
        return None;
    }
    let host_end = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    match authority.get(host_end..)?.find(':') {
        Some(colon) => {
            Some((scheme, authority.get(..host_end + colon)?, Some(authority.get(host_end + colon + 1..)?)))
        }
        None => Some((scheme, authority, None)),
    }
}

/// A port that is the scheme's own is the same as none.
fn with_default(scheme: &str, port: PortPattern) -> PortPattern {
    match (scheme, &port) {
        ("http", PortPattern::Is(Some(80))) | ("https", PortPattern::Is(Some(443))) => PortPattern::Is(None),
        _ => port,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_patterns_match_what_they_say() {
        let fits = |pattern: &str, origin: &str| OriginPattern::parse(pattern).unwrap().matches(origin);
        assert!(fits("https://shop.example", "https://shop.example"));
        assert!(fits("https://shop.example:443/", "https://shop.example"));
        assert!(!fits("https://shop.example", "http://shop.example"));
        assert!(!fits("https://shop.example", "https://shop.example:8443"));
        assert!(fits("https://*.shop.example", "https://a.b.shop.example"));
        assert!(!fits("https://*.shop.example", "https://shop.example"));
        assert!(!fits("https://*.shop.example", "https://evilshop.example"));
        assert!(fits("*", "https://anything.example") && fits("*", "null"));
        for pattern in ["shop.example", "https://", "https://*", "https://a*b.example", "https://x:y"] {
            assert_eq!(OriginPattern::parse(pattern), None, "{pattern}");
        }
    }
}
