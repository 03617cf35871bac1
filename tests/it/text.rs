//! What a sender wrote as text: kept to the byte, or refused by its place.

use tests::faults::Timed;
use tests::log;
use tests::rivulet::Rivulet;

use crate::accept::Kept;

const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

/// C01: a repair pass must not touch what is right, and one unreadable item must not cost its neighbours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn surrogate_halves_are_treated_alike_and_whole_pairs_stay_as_sent() {
    let _timed = Timed::new("C01");
    let rivulet = Rivulet::up().await;
    let titles = [
        r#""ok \ud83d\ude00""#,
        r#""cut \ud83d""#,
        r#""\ude00\ud83d""#,
        r#""literal \\ud83d text""#,
        r#""\n\u0041\ud83d\n""#,
    ];
    let event = |title: &str| {
        format!(r#"{{"event_type":"page_view","user_id":"c01","metadata":{{"title":{title}}}}}"#)
    };
    let body = format!("[{}]", titles.map(event).join(","));
    let answer = rivulet.client().send(body).await;
    assert!([200, 207].contains(&answer.status), "{}", answer.text);
    let statuses = answer.statuses();
    assert_eq!(statuses.len(), 5);
    assert_eq!((statuses[0], statuses[3]), ("accepted", "accepted"), "{}", answer.text);
    assert!(statuses[1] == statuses[2] && statuses[2] == statuses[4], "treated alike: {}", answer.text);
    if statuses[1] == "rejected" {
        for bad in [1, 2, 4] {
            assert_eq!(answer.verdicts()[bad]["reason"]["pointer"], "/metadata/title", "{}", answer.text);
        }
    }
    let records = log::events(&rivulet).await;
    for whole in [titles[0], titles[3]] {
        assert!(
            records.iter().any(|record| record.line.contains(whole)),
            "not as sent: {whole}: {records:?}"
        );
    }

    let mut broken = br#"{"event_id":"c0100000-0000-4000-8000-000000000002","event_type":"page_view","user_id":"c01","metadata":{"title":""#.to_vec();
    broken.extend_from_slice(b"\xf0\x9f\x98\"}}");
    let mut body = event("\"first\"").into_bytes();
    for line in [&broken[..], event("\"third\"").as_bytes()] {
        body.push(b'\n');
        body.extend_from_slice(line);
    }
    let answer = rivulet.client().send_with(&[LINES], body).await;
    assert_eq!(answer.status, 207, "{}", answer.text);
    assert_eq!(answer.statuses(), ["accepted", "rejected", "accepted"], "{}", answer.text);
    assert!(Kept::read(&rivulet).await.has(&broken), "the raw bytes are not in quarantine");
}
