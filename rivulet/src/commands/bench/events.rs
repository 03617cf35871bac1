//! Synthetic events of about 800 bytes, like a shop's, from a seed.
//!
//! **Invariant:** the same seed gives the same bytes; every event id occurs once.

use std::fmt::Write as _;

use schemas::id::EventId;

/// A small deterministic generator (splitmix64, Steele et al. 2014), so that a seed replays a run.
#[derive(Clone, Debug)]
pub(in crate::commands) struct Generator(u64);

impl Generator {
    /// Starts from a seed.
    pub(in crate::commands) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(in crate::commands) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(in crate::commands) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A new event id at `unix_millis`.
    pub(in crate::commands) fn event_id(&mut self, unix_millis: u64) -> EventId {
        let (high, low) = (self.next().to_be_bytes(), self.next().to_be_bytes());
        let mut entropy = [0_u8; 10];
        for (place, byte) in entropy.iter_mut().zip(high.into_iter().chain(low)) {
            *place = byte;
        }
        EventId::v7(unix_millis, &entropy)
    }
}

const CATEGORIES: &[&str] = &["shoes", "coffee", "lamps", "plants", "books", "bikes", "toys", "garden"];

/// One `product_view` as JSON, about 800 bytes.
pub(in crate::commands) fn product_view(generator: &mut Generator, unix_millis: u64) -> String {
    let id = generator.event_id(unix_millis);
    let (user, product, price) =
        (generator.below(50_000), generator.below(5_000), 500 + generator.below(20_000));
    let category = usize::try_from(generator.below(CATEGORIES.len() as u64))
        .ok()
        .and_then(|n| CATEGORIES.get(n))
        .unwrap_or(&"shoes");
    let mut event = String::with_capacity(900);
    let _ = write!(
        event,
        r#"{{"event_id":"{id}","event_type":"product_view","user_id":"user_{user}","anonymous_id":"device_{user}","session_id":"{session:016x}","timestamp":{unix_millis},"metadata":{{"product_id":"product_{product}","category":"{category}","name":"Sample product {product}, žluťoučký","price":{major}.{minor:02},"currency":"EUR","brand":"Brand {brand}","variant":"size-{variant}","position":{position},"list":"search results","in_stock":true,"rating":4.5,"tags":["new","sale","summer"]}},"context":{{"library":{{"name":"bench","version":"1.0.0"}},"page":{{"url":"https://shop.example/{category}/product_{product}?utm_source=newsletter&utm_medium=email&utm_campaign=autumn","title":"Sample product {product}","referrer":"https://shop.example/{category}"}},"screen":{{"width":1920,"height":1080,"density":2}},"locale":"en-GB","timezone":"Europe/Prague"}}}}"#,
        session = generator.next(),
        major = price / 100,
        minor = price % 100,
        brand = product % 40,
        variant = product % 12,
        position = product % 60,
    );
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_and_events_are_valid() {
        let (mut one, mut two) = (Generator::new(7), Generator::new(7));
        let event = product_view(&mut one, 1_700_000_000_000);
        assert_eq!(event, product_view(&mut two, 1_700_000_000_000));
        assert!((700..1000).contains(&event.len()), "{} bytes", event.len());
        let event: serde_json::Value = serde_json::from_str(&event).unwrap();
        let registry = schemas::registry::Registry::builtin();
        let judged =
            registry.judge(&schemas::id::EventType::new("product_view"), None, event.get("metadata"));
        assert!(matches!(judged, schemas::registry::Judgement::Valid(_)), "{judged:?}");
    }
}
