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

    // Longer than a batch they are streams: of a damaged one all is on the log that the answer counts, and no more.
    let members = [(); 2].map(|()| client::gzip((0..2_000).map(|_| line()).collect::<String>().as_bytes()));
    let mut members = members.concat();
    let answer = rivulet.client().send_with(&[LINES, gzip], members.clone()).await;
    assert_eq!((answer.status, &answer.json["counts"]["accepted"]), (200, &4_000.into()), "{}", answer.text);
    members.truncate(members.len() - 9);
    let again = [client::gzip((0..4_000).map(|_| line()).collect::<String>().as_bytes()), members].concat();
    let answer = rivulet.client().send_with(&[LINES, gzip], again).await;
    assert_eq!((answer.status, &answer.json["complete"]), (207, &false.into()), "{}", answer.text);
    assert_eq!(answer.json["error"]["code"], "body.compression", "{}", answer.text);
    let fresh = usize::try_from(answer.json["counts"]["accepted"].as_u64().unwrap()).unwrap();
    assert!(fresh >= 2_500, "{}", answer.text);
    assert_eq!(log::events(&rivulet).await.len(), 4 + 4_000 + fresh, "what is counted is there, and no more");
    crate::hostile::well(&mut rivulet).await;
}

/// The kind behind C03: members that begin anywhere, cuts anywhere, any one byte changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_cuts_and_changed_bytes_of_any_encoding_give_all_events_or_none() {
    let _timed = Timed::new("compression: anywhere");
    let mut rivulet = Rivulet::up().await;
    let mut random = Random::seeded("compression: anywhere");
    let gzip = ("content-encoding", "gzip");
    let mut right = 0;
    for _ in 0..20 {
        let mut lines = || events::page_view(&mut random, &of_user("anywhere"));
        let text = events::ndjson(&[lines(), lines(), lines()]);
        let mut places: Vec<usize> =
            (0..random.below(5)).map(|_| usize::try_from(random.below(text.len() as u64)).unwrap()).collect();
        places.extend([0, text.len()]);
        places.sort_unstable();
        let members = places.windows(2).map(|pair| client::gzip(&text.as_bytes()[pair[0]..pair[1]]));
        let answer = rivulet.client().send_with(&[LINES, gzip], members.collect::<Vec<_>>().concat()).await;
        assert_eq!(answer.statuses(), ["accepted"; 3], "members at {places:?}: {}", answer.text);
        right += 3;
    }
    for (encoding, encode) in ENCODINGS {
        let text = events::ndjson(&[(); 2].map(|()| events::page_view(&mut random, &of_user("anywhere"))));
        let (whole, header) = (encode(text.as_bytes()), [LINES, ("content-encoding", encoding)]);
        assert_eq!(rivulet.client().send_with(&header, whole.clone()).await.status, 200, "{encoding}");
        right += 2;
        for _ in 0..25 {
            let at = usize::try_from(random.below(whole.len() as u64)).unwrap();
            let answer = rivulet.client().send_with(&header, whole[..at].to_vec()).await;
            let refused = [(400, "body.compression"), (400, "body.empty")];
            assert!(
                refused.contains(&(answer.status, answer.code())),
                "{encoding} cut at {at}: {}",
                answer.text
            );

            let mut changed = whole.clone();
            changed[at] ^= 1 << random.below(8);
            let answer = rivulet.client().send_with(&header, changed).await;
            // A byte that nothing depends on, such as a time in the header, may be any; an encoding without a checksum cannot tell.
            assert!(
                [200, 207, 400, 413, 422].contains(&answer.status),
                "{encoding} at {at}: {}",
                answer.text
            );
            if ["gzip", "deflate"].contains(&encoding) && answer.status != 400 {
                assert_eq!(answer.statuses(), ["duplicate"; 2], "{encoding} at {at}: {}", answer.text);
            }
            right += answer.statuses().iter().filter(|status| **status == "accepted").count();
        }
    }
    assert_eq!(log::events(&rivulet).await.len(), right, "only what was named as accepted is on the log");
    crate::hostile::well(&mut rivulet).await;
}

const ENCODINGS: [(&str, fn(&[u8]) -> Vec<u8>); 4] =
    [("gzip", client::gzip), ("deflate", client::zlib), ("br", client::brotli), ("zstd", client::zstd)];
