//! The machine dies at every write, in turn and at random; then the state is that of an oracle, and nothing was lost.
//!
//! A failing seed is printed; `RIVULET_SEED` runs it alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests fail by panicking"
)]

mod support;

use std::collections::HashSet;
use std::sync::Arc;

use broker::clock::TestClock;
use schemas::receipt::Trust;
use schemas::time::Timestamp;
use schemas::topic::Topic;
use support::*;

/// splitmix64
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

fn events(dice: &mut Dice) -> Vec<Event> {
    let mut received = NOON;
    let mut events: Vec<Event> = Vec::new();
    for n in 0..60_u128 {
        received += i64::try_from(dice.roll(6)).unwrap() * MINUTE;
        if n > 0 && dice.roll(8) == 0 {
            let again = events[usize::try_from(dice.roll(u64::try_from(n).unwrap())).unwrap()].clone();
            events.push(Event { received, ..again });
            continue;
        }
        let late = if dice.roll(4) == 0 { i64::try_from(dice.roll(120)).unwrap() * MINUTE } else { 0 };
        let (kind, metadata) = match dice.roll(6) {
            0 => ("click", "{}".to_owned()),
            1 => ("purchase", format!(r#"{{"revenue":{}.1}}"#, dice.roll(100))),
            2 => ("identify", format!(r#"{{"traits":{{"t":{}}}}}"#, dice.roll(100))),
            _ => ("product_view", format!(r#"{{"category":"c{}"}}"#, dice.roll(2))),
        };
        let (user, device) = match dice.roll(4) {
            0 => (None, Some(format!("a{}", dice.roll(3)))),
            1 => (Some(format!("u{}", dice.roll(3))), Some(format!("a{}", dice.roll(3)))),
            _ => (Some(format!("u{}", dice.roll(3))), None),
        };
        let trust = if dice.roll(3) == 0 { Trust::Secret } else { Trust::Public };
        let mut event = Event {
            received,
            user,
            device,
            trust,
            ..Event::new(n + 1, received - late, "", kind, &metadata)
        };
        if trust == Trust::Secret && event.user.is_some() && dice.roll(8) == 0 {
            event.kind = "alias";
            event.metadata = format!(r#"{{"previous_id":"u{}"}}"#, dice.roll(3));
        }
        events.push(event);
    }
    events
}

/// Runs with deaths after the given numbers of writes; gives the number of lives.
async fn live(seed: u64, mut deaths: impl FnMut(&mut Dice) -> Option<i64>) -> u32 {
    let mut dice = Dice(seed);
    let chaos = Arc::new(Chaos::default());
    let log = support::log(3, &chaos);
    let store = Arc::new(MortalStore { chaos: Arc::clone(&chaos), ..MortalStore::default() });
    let clock = Arc::new(TestClock::new(Timestamp(NOON)));
    let mut waiting = events(&mut dice).into_iter().peekable();
    let mut lives = 0;
    loop {
        lives += 1;
        chaos.arm(i64::MAX, false);
        let processor = start(&log, Arc::clone(&store) as _, &clock).await;
        let death = deaths(&mut dice);
        chaos.arm(death.unwrap_or(i64::MAX), dice.roll(2) == 0);
        while waiting.peek().is_some() && !chaos.is_dead() {
            for event in waiting.by_ref().take(1 + usize::try_from(dice.roll(10)).unwrap()) {
                log.put(event.record());
            }
            if dice.roll(2) == 0 {
                settled(&processor, &log).await;
            }
        }
        let whole = settled(&processor, &log).await;
        processor.drain().await;
        if whole {
            assert!(processor.ledger().balances(), "seed {seed}: {:?}", processor.ledger());
            break;
        }
        // A process that is killed leaves what the system has; a machine that dies, what the disk has.
        if dice.roll(2) == 0 {
            store.inner.crash();
        }
    }
    let oracle = oracle(&log);
    let stored = stored_profiles(&store.inner);
    assert_eq!(stored.keys().collect::<Vec<_>>(), oracle.profiles.keys().collect::<Vec<_>>(), "seed {seed}");
    for (key, profile) in &oracle.profiles {
        assert_eq!(&stored[key], profile, "seed {seed}, {key}");
    }
    let told: HashSet<_> = decision_ids(&log).into_iter().collect();
    assert_eq!(told, oracle.decisions, "seed {seed}");
    let ids: Vec<_> = log
        .records(Topic::Events)
        .iter()
        .filter_map(|r| r.header("rivulet_id").map(<[u8]>::to_vec))
        .collect();
    assert!(
        lives > 1 || ids.len() == ids.iter().collect::<HashSet<_>>().len(),
        "seed {seed}: without a death no output is repeated"
    );
    lives
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn without_a_death_the_state_is_the_oracles() {
    runtime().block_on(async {
        for seed in 0..20 {
            assert_eq!(live(seed, |_| None).await, 1);
        }
    });
}

/// A write may have its effect although its caller is told that it failed.
#[test]
fn a_write_that_fails_once_is_tried_again_without_a_restart() {
    runtime().block_on(async {
        for write in 0..24 {
            let chaos = Arc::new(Chaos::default());
            let log = support::log(1, &chaos);
            let store = Arc::new(MortalStore { chaos: Arc::clone(&chaos), ..MortalStore::default() });
            let clock = Arc::new(TestClock::new(Timestamp(NOON)));
            let processor = start(&log, Arc::clone(&store) as _, &clock).await;
            chaos.fail_once(write / 2, write % 2 == 0);
            for id in 1..=4 {
                log.put(Event::new(id, NOON, "u1", "click", "{}").record());
                assert!(settled(&processor, &log).await);
            }
            processor.drain().await;
            let oracle = oracle(&log);
            assert_eq!(stored_profiles(&store.inner), oracle.profiles, "write {write}");
            let told: HashSet<_> = decision_ids(&log).into_iter().collect();
            assert_eq!(told, oracle.decisions, "write {write}");
            assert_eq!((processor.ledger().applied, processor.ledger().duplicate), (4, 0), "write {write}");
        }
    });
}

#[test]
fn a_death_at_each_write_in_turn_loses_nothing() {
    runtime().block_on(async {
        for write in 0..60 {
            let mut once = Some(write);
            live(1_000 + u64::try_from(write).unwrap(), |_| once.take()).await;
        }
    });
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a failing seed is run alone")]
fn deaths_at_random_writes_lose_nothing() {
    let only = std::env::var("RIVULET_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(100..200, |seed| seed..seed + 1);
    runtime().block_on(async {
        let mut lives = 0;
        for seed in seeds {
            let mut left = 12;
            lives += live(seed, |dice| {
                left -= 1;
                (left > 0).then(|| i64::try_from(dice.roll(25)).unwrap())
            })
            .await;
        }
        assert!(only.is_some() || lives > 300, "{lives} lives: the deaths did not happen");
    });
}
