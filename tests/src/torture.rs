//! Load, and what may befall a program, from a seed; then the oracle's judgement. The crash tests and `rivulet torture` share it.
//!
//! **Invariant:** the same seed gives the same load and the same faults; whatever was answered `disk` or `broker` is on the log in
//! the order sent, each event counted once, profiles and decisions as the log says.

use std::time::Duration;

use futures_util::future::join_all;

use crate::events::Random;
use crate::faults::{self, SOON, Signal};
use crate::log;
use crate::oracle;
use crate::rivulet::{Options, Rivulet, sum};
use crate::sender::{Sender, check_log};

/// The longest time from a start's readiness to the next fault.
const FAULT_WITHIN_MILLIS: u64 = 700;
/// The longest time that a program is frozen or without space.
const FAULT_LASTS_MILLIS: u64 = 400;
/// How long a program may take to stop by itself.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// Bytes to be kept free that no disk has.
const NO_ROOM: u64 = 1 << 60;

/// What befalls the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// `kill -9`.
    Kill,
    /// SIGTERM.
    Stop,
    /// It stands still for a while.
    Freeze,
    /// It is killed, and starts on a disk without space; then there is space again.
    Full,
}

/// All of them.
pub const ALL: &[Fault] = &[Fault::Kill, Fault::Stop, Fault::Freeze, Fault::Full];

/// What was survived.
#[derive(Clone, Debug)]
pub struct Survived {
    /// The faults, in order.
    pub faults: Vec<Fault>,
    /// Events that were promised safe.
    pub promised: usize,
    /// Records on the log.
    pub records: usize,
}

/// Keeps the program under load through `rounds` of faults and checks everything. Panics when a promise is broken.
pub async fn survive(
    random: &mut Random,
    options: Options,
    rounds: u64,
    prefix: &str,
    befall: &[Fault],
) -> Survived {
    let mut rivulet = Rivulet::with(options).await;
    let mut crowd = Sender::crowd(random, 4, prefix);
    let mut suffered = Vec::new();
    for round in 0..rounds {
        pump(&rivulet, &mut crowd, random.below(FAULT_WITHIN_MILLIS), round).await;
        let fault = *random.pick(befall);
        suffered.push(fault);
        befalls(&mut rivulet, &mut crowd, fault, random.below(FAULT_LASTS_MILLIS), round).await;
        eprint!("{fault:?} {:.0} ms, ", rivulet.ready_after.as_secs_f64() * 1e3);
    }
    eprintln!("to be ready again");
    let client = rivulet.client();
    for sender in &mut crowd {
        faults::eventually("everything is answered in the end", faults::SOON, async || {
            sender.settle(&client).await.then_some(())
        })
        .await;
        let odd =
            sender.refusals.iter().find(|(status, _)| !suffered.contains(&Fault::Full) || *status != 503);
        assert!(odd.is_none(), "refused: {odd:?}");
    }
    let records = arrived(&rivulet, &crowd).await;
    check_log(&crowd, &records);
    oracle::check_profiles(&rivulet, &records, prefix).await;
    oracle::check_banners(&rivulet, &records, prefix).await;
    ledger_closes(&rivulet).await;
    let promised = crowd.iter().map(Sender::promised).sum();
    Survived { faults: suffered, promised, records: records.len() }
}

async fn pump(rivulet: &Rivulet, crowd: &mut [Sender], millis: u64, round: u64) {
    let client = rivulet.client();
    let load = join_all(crowd.iter_mut().map(|sender| sender.pump(&client)));
    let ended = faults::during(Duration::from_millis(millis), load).await;
    assert!(ended.is_none(), "no answer in round {round} before the fault");
}

async fn befalls(rivulet: &mut Rivulet, crowd: &mut [Sender], fault: Fault, millis: u64, round: u64) {
    match fault {
        Fault::Kill => {
            rivulet.kill();
            rivulet.start().await;
        }
        Fault::Stop => {
            rivulet.terminate(STOP_WITHIN).await;
            rivulet.start().await;
        }
        Fault::Freeze => {
            faults::signal(rivulet.pid(), Signal::Stop);
            faults::lasting(Duration::from_millis(millis)).await;
            faults::signal(rivulet.pid(), Signal::Continue);
        }
        Fault::Full => {
            rivulet.kill();
            let before = rivulet.options_mut().clone();
            *rivulet.options_mut() = before.clone().set("log", "headroom_bytes", NO_ROOM);
            rivulet.spawn();
            pump(rivulet, crowd, millis, round).await;
            rivulet.assert_alive();
            rivulet.kill();
            *rivulet.options_mut() = before;
            rivulet.start().await;
        }
    }
}

/// What was received since the last start equals the sum of what became of it.
async fn ledger_closes(rivulet: &Rivulet) {
    faults::eventually("the gateway's ledger closes", SOON, async || {
        let metrics = rivulet.metrics().await;
        let received = sum(&metrics, "rivulet_gateway_events_received_total", &[])?;
        let outcomes = sum(&metrics, "rivulet_gateway_events_total", &[]).unwrap_or(0);
        (received == outcomes).then_some(())
    })
    .await;
}

/// The log's events once all that was promised has arrived there: at once when embedded, through the spool before Kafka.
pub async fn arrived(rivulet: &Rivulet, crowd: &[Sender]) -> Vec<log::Record> {
    let promised: Vec<&str> = crowd
        .iter()
        .flat_map(|sender| &sender.ledger)
        .filter(|sent| sent.acked.is_some())
        .map(|sent| crate::events::id(&sent.event))
        .collect();
    let records = faults::until(faults::LATER, async || {
        let records = log::events(rivulet).await;
        let there: std::collections::HashSet<&str> = records.iter().map(log::Record::event_id).collect();
        promised.iter().all(|id| there.contains(id)).then_some(records)
    });
    match records.await {
        Some(records) => records,
        // Not all there: the check that follows says which.
        None => log::events(rivulet).await,
    }
}
