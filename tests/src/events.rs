//! Events as a shop would send them, from a seed.
//!
//! **Invariant:** the same seed gives the same events; the seed of a run is printed, and taken from `RIVULET_SEED`.

use serde_json::{Value, json};

/// The seed's own example event: it must be accepted as it stands.
pub const EXAMPLE: &str = r#"{"event_id":"123e4567-e89b-12d3-a456-426614174000","event_type":"add_to_cart","user_id":"user_789","timestamp":"2024-04-25T14:23:05.123Z","metadata":{"product_id":"product_456","quantity":2}}"#;

/// The id of [`EXAMPLE`].
pub const EXAMPLE_ID: &str = "123e4567-e89b-12d3-a456-426614174000";

const CATEGORIES: [&str; 4] = ["shoes", "hats", "lamps", "tea"];

/// Random numbers by splitmix64: small, seeded, the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From `RIVULET_SEED` or the clock; prints the seed.
    pub fn seeded(test: &str) -> Self {
        let clock = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |time| time.as_nanos());
        let clock = u64::try_from(clock & u128::from(u64::MAX)).unwrap_or_default();
        let seed = crate::faults::effort("RIVULET_SEED", clock);
        eprintln!("{test}: RIVULET_SEED={seed}");
        Self(seed)
    }

    /// Another one that depends on this one.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self(self.draw())
    }

    /// Sixty-four bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let index = self.below(from.len() as u64);
        &from[usize::try_from(index).expect("an index")]
    }

    /// A random UUID.
    pub fn uuid(&mut self) -> String {
        let bytes = (u128::from(self.draw()) << 64) | u128::from(self.draw());
        uuid::Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid().to_string()
    }
}

/// Whom an event is of.
pub fn of_user(id: &str) -> Value {
    json!({ "user_id": id })
}

/// Whom an event is of.
pub fn of_device(id: &str) -> Value {
    json!({ "anonymous_id": id })
}

/// An event of one type; `who` holds its ids.
pub fn event(random: &mut Random, event_type: &str, who: &Value, metadata: &Value) -> Value {
    let mut event = json!({ "event_id": random.uuid(), "event_type": event_type });
    for (name, value) in who.as_object().expect("ids") {
        event[name] = value.clone();
    }
    event["metadata"] = metadata.clone();
    event
}

/// A product view.
pub fn product_view(random: &mut Random, who: &Value, category: &str) -> Value {
    let product = format!("product_{}", random.below(1000));
    event(random, "product_view", who, &json!({ "product_id": product, "category": category }))
}

/// A page view.
pub fn page_view(random: &mut Random, who: &Value) -> Value {
    let path = format!("/p/{}", random.below(100));
    event(random, "page_view", who, &json!({ "path": path, "url": format!("https://shop.example{path}") }))
}

/// A valid `add_to_cart`.
pub fn add_to_cart(random: &mut Random, who: &Value) -> Value {
    let product = format!("product_{}", random.below(1000));
    let quantity = 1 + random.below(5);
    event(random, "add_to_cart", who, &json!({ "product_id": product, "quantity": quantity }))
}

/// Something that a visitor may do, without purchases and sign-ins.
pub fn any(random: &mut Random, who: &Value) -> Value {
    match random.below(10) {
        0..=4 => {
            let category = *random.pick(&CATEGORIES);
            product_view(random, who, category)
        }
        5..=7 => page_view(random, who),
        _ => add_to_cart(random, who),
    }
}

/// The event with a `timestamp` in milliseconds since 1970.
#[must_use]
pub fn at(mut event: Value, millis: i64) -> Value {
    event["timestamp"] = json!(millis);
    event
}

/// Now, in milliseconds since 1970.
pub fn now_millis() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(now.as_millis()).expect("a clock before the year 292277026")
}

/// An event's id.
pub fn id(event: &Value) -> &str {
    event["event_id"].as_str().expect("an event with an id")
}

/// The events as lines.
pub fn ndjson(events: &[Value]) -> String {
    events.iter().flat_map(|event| [event.to_string(), "\n".to_owned()]).collect()
}

/// The events as a JSON array.
pub fn array(events: &[Value]) -> String {
    Value::from(events.to_vec()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_events() {
        let make = |seed| any(&mut Random::new(seed), &of_user("u"));
        assert_eq!(make(7), make(7));
        assert_ne!(make(7), make(8));
    }
}
