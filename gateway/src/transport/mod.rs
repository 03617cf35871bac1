//! HTTP: which path does what.
//!
//! **Invariant:** every answer of these paths, errors too, can be read by a page of another origin; no path serves a secret to a
//! public key.

pub mod api;
pub mod body;
pub mod cors;
pub mod errors;
mod health;
mod hot;
mod incoming;
mod limits;
pub mod methods;
mod pixel;
mod quarantine;
mod registry;
mod rest;
mod socket;
mod stream;
pub(crate) mod tail;
mod tokens;
mod vendor;
mod websocket;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::Extensions;
use http::HeaderMap;
use http::header::USER_AGENT;
use schemas::id::SourceName;
use schemas::verdict::AckLevel;

use self::api::Api;
use crate::Gateway;
use crate::address;
use crate::authenticate::Key;
use crate::config::Lane;
use crate::consent::Signals;
use crate::decode::native::SentAt;
use crate::pipeline::Transmission;
use crate::push::Session;
use crate::server::Peer;

/// Longest `User-Agent` kept, bytes.
const MAX_USER_AGENT_BYTES: usize = 512;

/// The gateway's routes.
pub(crate) fn api(gateway: &Arc<Gateway>) -> Api<()> {
    Api::new()
        .route(rest::EVENTS, rest::events)
        .route(pixel::PIXEL, pixel::pixel)
        .route(websocket::STREAM, websocket::stream)
        .route(tokens::TOKENS, tokens::mint)
        .route(limits::LIMITS, limits::limits)
        .route(registry::LIST, registry::list)
        .route(registry::DOCUMENT, registry::document)
        .route(hot::HOT, hot::list)
        .route(tail::TAIL, tail::follow)
        .route(health::LIVE, health::live)
        .route(health::READY, health::ready)
        .route(health::METRICS, health::metrics)
        .merge(quarantine::api())
        .with_state(Arc::clone(gateway))
}

/// What every event of a client has in common, beside its body.
#[derive(Clone, Debug)]
struct Client {
    key: Arc<Key>,
    ip: Option<String>,
    user_agent: Option<String>,
    signals: Signals,
}

impl Client {
    fn new(gateway: &Gateway, key: Arc<Key>, visitor: &Visitor) -> Self {
        let ip = address::client(visitor.peer, &visitor.headers, &gateway.trusted);
        let ip = address::kept(ip, key.policy.ip);
        let user_agent = visitor.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
        let user_agent = user_agent.map(|text| text.chars().take(MAX_USER_AGENT_BYTES).collect());
        Self { key, ip, user_agent, signals: Signals::of(&visitor.headers) }
    }

    fn source(&self) -> &SourceName {
        &self.key.source
    }

    fn lane(&self) -> Lane {
        self.key.policy.lane
    }

    fn transmission(
        &self,
        gateway: &Gateway,
        ack: Option<AckLevel>,
        sent_at: SentAt,
        session: Option<Session>,
    ) -> Transmission {
        // A socket outlives changes of keys, and its key's own end.
        let renewed = gateway.keys.load().renewed(&self.key);
        Transmission {
            key_is_good: renewed.is_some(),
            received_at: gateway.clock.now(),
            sent_at,
            each_sent_at: Vec::new(),
            ack: ack.or(self.key.policy.ack).unwrap_or(gateway.config.ack),
            key: renewed.unwrap_or_else(|| Arc::clone(&self.key)),
            ip: self.ip.clone(),
            user_agent: self.user_agent.clone(),
            signals: self.signals,
            session,
        }
    }
}

/// Who knocks: the other end of the connection and what it says in headers.
#[derive(Clone, Debug)]
struct Visitor {
    peer: IpAddr,
    headers: HeaderMap,
}

impl Visitor {
    /// Requests that did not come through [`crate::server::serve`] have no peer; they count as this machine's own.
    fn new(extensions: &Extensions, headers: HeaderMap) -> Self {
        let peer = extensions.get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.0.ip());
        Self { peer, headers }
    }
}

#[cfg(test)]
mod tests;
