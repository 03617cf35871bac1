//! Thousands of schedules against the model of the world.

use crate::world::World;

const SCHEDULES: u64 = 2_000;
/// Steps of a schedule before the world heals.
const STEPS: u32 = 160;

fn run(seed: u64) -> (usize, u32) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.misfortune();
    }
    world.heal();
    (world.tracked.len(), world.log.values().map(|times| times - 1).sum())
}

#[test]
fn every_event_ends_on_the_log_whatever_happens() {
    let seeds = 0..SCHEDULES;
    let (mut events, mut again) = (0, 0);
    for seed in seeds {
        let (tracked, duplicates) = run(seed);
        events += tracked;
        again += duplicates;
    }
    assert!(events > 0);
    assert!(again > 0, "the schedules are too tame: nothing arrived twice");
}
