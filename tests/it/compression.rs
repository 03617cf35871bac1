//! A compressed body is read to its end, or refused as a whole.

use tests::client;
use tests::events::{self, Random, of_user};
use tests::faults::Timed;
use tests::log;
use tests::rivulet::Rivulet;

const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

/// C03: gzip bodies of several members, cut, flipped, followed by something, or none at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gzip_body_is_read_to_its_end_or_refused() {
    let _timed = Timed::new("C03");
    let mut rivulet = Rivulet::up().await;
    let mut random = Random::new(20);
    let mut line = || format!("{}\n", events::page_view(&mut random, &of_user("c03")));
    let gzip = ("content-encoding", "gzip");
    let (a, b) = (line(), line());

    let mut members = client::gzip(a.as_bytes());
    members.extend(client::gzip(b.as_bytes()));
    let answer = rivulet.client().send_with(&[LINES, gzip], members).await;
    assert_eq!(answer.statuses(), ["accepted", "accepted"], "several members: {}", answer.text);

    let whole = client::gzip(format!("{}{}", line(), line()).as_bytes());
    let cut = whole[..whole.len() - 9].to_vec();
    let mut flipped = whole.clone();
    let crc = flipped.len() - 8;
    flipped[crc] ^= 1;
    let garbage = [&whole[..], b"garbage"].concat();
    for (name, body) in [("cut", cut), ("CRC flipped", flipped), ("garbage behind", garbage)] {
        let answer = rivulet.client().send_with(&[LINES, gzip], body).await;
        assert_eq!((answer.status, answer.code()), (400, "body.compression"), "{name}: {}", answer.text);
    }
    assert_eq!(log::events(&rivulet).await.len(), 2, "nothing of a refused body is on the log");

    let zeros = [&client::gzip(line().as_bytes())[..], &[0; 5]].concat();
    let answer = rivulet.client().send_with(&[LINES, gzip], zeros).await;
    assert_eq!(answer.statuses(), ["accepted"], "zeros behind are padding: {}", answer.text);

    let answer = rivulet.client().send_with(&[LINES, gzip], line()).await;
    assert_eq!((answer.status, answer.code()), (400, "body.compression"), "plain: {}", answer.text);
    let answer = rivulet
        .client()
        .send_with(&[LINES, ("content-encoding", "X-GZIP")], client::gzip(line().as_bytes()))
        .await;
    assert_eq!(answer.statuses(), ["accepted"], "{}", answer.text);
    crate::hostile::well(&mut rivulet).await;
}
