//! A disk that is full: nothing answered is lost, nothing crashes, and admission opens by itself.

use tests::events::{self, Random, of_user};
use tests::faults::{self, SOON, Timed};
use tests::log;
use tests::rivulet::{Options, Rivulet};

/// Bytes of the log's disk.
const DISK: u64 = 24 << 20;
/// Bytes that the log keeps free.
const HEADROOM: u64 = 4 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_closes_admission_survives_a_kill_and_opens_again_by_itself() {
    let _timed = Timed::new("space");
    let mut random = Random::seeded("space");
    let options =
        Options::default().set("log", "headroom_bytes", HEADROOM).set("log", "segment_bytes", 1 << 20);
    let mut rivulet = Rivulet::prepared(options);
    if !rivulet.put_log_on_a_disk_of(DISK) {
        eprintln!("no namespaces here: the disk is the machine's, and full because much is to be kept free");
        rivulet.options_mut().env.retain(|(name, _)| !name.ends_with("HEADROOM_BYTES"));
        *rivulet.options_mut() = rivulet.options_mut().clone().set("log", "headroom_bytes", u64::MAX >> 2);
        rivulet.spawn();
        assert_eq!(
            rivulet.client().send(events::page_view(&mut random, &of_user("s")).to_string()).await.status,
            503
        );
        return;
    }
    rivulet.volume().expect("mounted").fill("ballast", DISK, DISK / 2);
    rivulet.start().await;
    let mut accepted = Vec::new();
    // Fills what is left above the headroom.
    let refused = loop {
        let batch: Vec<_> =
            (0..100).map(|n| events::any(&mut random, &of_user(&format!("space-{n}")))).collect();
        let answer = rivulet.client().send(events::array(&batch)).await;
        if answer.status != 200 {
            break answer;
        }
        accepted.extend(batch.iter().map(|event| events::id(event).to_owned()));
        assert!(accepted.len() < 200_000, "the disk never fills");
    };
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(refused.header("retry-after").is_some(), "says when to come back");
    assert!(refused.text.contains("log.full"), "{}", refused.text);

    // Killed, and not a byte free at the next start.
    rivulet.kill();
    let volume = rivulet.volume().expect("mounted");
    volume.fill("more-ballast", DISK, 0);
    rivulet.spawn();
    assert_eq!(rivulet.client().get("/live").await.unwrap().status, 200, "runs on a full disk");
    let ready = rivulet.client().get("/ready").await.unwrap();
    assert_eq!((ready.status, &ready.json["disk"]), (503, &"full".into()), "{}", ready.text);
    let one = events::page_view(&mut random, &of_user("space-0"));
    assert_eq!(rivulet.client().send(one.to_string()).await.status, 503);
    let fate = log::fate(&rivulet, &accepted[accepted.len() / 2]).await;
    assert_eq!(fate["outcome"], "accepted", "what is there is found: {fate}");

    // Space comes back; nobody has to do anything.
    for name in ["ballast", "more-ballast"] {
        std::fs::remove_file(rivulet.volume().expect("mounted").path(name)).unwrap();
    }
    faults::eventually("admission opens by itself", SOON, async || {
        (rivulet.client().send(one.to_string()).await.status == 200).then_some(())
    })
    .await;
    accepted.push(events::id(&one).to_owned());
    let records = log::events(&rivulet).await;
    let there: std::collections::HashSet<&str> = records.iter().map(log::Record::event_id).collect();
    let lost = accepted.iter().filter(|id| !there.contains(id.as_str())).count();
    assert_eq!(lost, 0, "of {} accepted events", accepted.len());
    rivulet.assert_alive();
}
