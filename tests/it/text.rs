//! What a sender wrote as text: kept to the byte, or refused by its place.

use tests::events::{self, Random, of_user};
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

/// The kind behind C01: whatever halves, pairs, escapes and letters stand beside each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_mixture_of_pairs_halves_and_escapes_is_kept_to_the_letter_or_refused() {
    const PAIRS: [&str; 4] = [r"\ud83d\ude00", r"\uD83D\uDE00", r"\uDBFF\udfff", r"\ud800\udc00"];
    const HIGH: [&str; 3] = [r"\ud83d", r"\uD800", r"\udbff"];
    const LOW: [&str; 3] = [r"\ude00", r"\uDC00", r"\udfff"];
    const OTHER: [&str; 8] = [r"\\ud83d", r"\\\\", r"\n", r"\u0041", "x", "😀", "ü", r#"\""#];
    let _timed = Timed::new("text: mixtures");
    let rivulet = Rivulet::up().await;
    let mut random = Random::seeded("text: mixtures");
    let mut cases = Vec::new();
    for _ in 0..400 {
        let (mut text, mut whole, mut open) = (String::new(), true, false);
        for _ in 0..=random.below(6) {
            let (piece, high, low) = match random.below(4) {
                0 => (*random.pick(&PAIRS), false, false),
                1 if random.below(3) == 0 => (*random.pick(&HIGH), true, false),
                2 if random.below(3) == 0 => (*random.pick(&LOW), false, true),
                _ => (*random.pick(&OTHER), false, false),
            };
            // A half is whole only as the first of two.
            whole &= open == low;
            open = high;
            text.push_str(piece);
        }
        cases.push((text, whole && !open, random.below(3)));
    }
    let event = |(text, _, place): &(String, bool, u64)| match place {
        0 => format!(r#"{{"event_type":"x_text","user_id":"mix","metadata":{{"title":"{text}"}}}}"#),
        1 => format!(r#"{{"event_type":"x_text","user_id":"mix","metadata":{{"a":[{{"b":"{text}"}}]}}}}"#),
        _ => format!(r#"{{"event_type":"x_text","user_id":"mix","context":{{"c":"{text}"}}}}"#),
    };
    let pointers = ["/metadata/title", "/metadata/a/0/b", "/context/c"];
    let bodies: Vec<String> = cases.iter().map(event).collect();
    let answer = rivulet.client().send(format!("[{}]", bodies.join(","))).await;
    assert_eq!(answer.verdicts().len(), cases.len(), "{}", answer.text);
    let records = log::events(&rivulet).await;
    let lines: String = records.iter().map(|record| record.line.as_str()).collect();
    for ((case, body), verdict) in cases.iter().zip(&bodies).zip(answer.verdicts()) {
        if case.1 {
            assert_eq!(verdict["status"], "accepted", "{body}: {verdict}");
            assert!(lines.contains(body.strip_suffix('}').unwrap()), "not as sent: {body}");
        } else {
            let reason = &verdict["reason"];
            let pointer = pointers[usize::try_from(case.2).unwrap()];
            assert_eq!(
                (&reason["code"], &reason["pointer"]),
                (&"json.unicode".into(), &pointer.into()),
                "{body}"
            );
        }
    }
    let good = cases.iter().filter(|case| case.1).count();
    assert!(good > 50 && cases.len() - good > 50, "{good} of {} are whole", cases.len());
    assert_eq!(records.len(), good);
}

/// The same with bytes: a character cut anywhere, at any place of a line, costs that line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_character_cut_anywhere_costs_its_line_and_is_kept_aside_to_the_byte() {
    let _timed = Timed::new("text: cut characters");
    let rivulet = Rivulet::up().await;
    let mut random = Random::seeded("text: cut characters");
    let (mut body, mut right, mut broken) = (Vec::new(), Vec::new(), Vec::new());
    for character in ["ü", "€", "😀", "\u{7ff}", "\u{ffff}", "\u{10ffff}"] {
        for keep in 1..=character.len() {
            for place in ["first", "last", "name"] {
                let bytes = &character.as_bytes()[..keep];
                let (before, after) = match place {
                    "first" => (r#"{"event_type":"x_text","user_id":"cut","metadata":{"t":""#, r#" tail"}}"#),
                    "last" => (r#"{"event_type":"x_text","user_id":"cut","metadata":{"t":"head "#, r#""}}"#),
                    _ => (r#"{"event_type":"x_text","user_id":"cut","metadata":{""#, r#"":1}}"#),
                };
                let line = [before.as_bytes(), bytes, after.as_bytes()].concat();
                let whole = keep == character.len();
                right.push(if whole { "accepted" } else { "rejected" });
                if !whole {
                    broken.push(line.clone());
                }
                let good = events::page_view(&mut random, &of_user("cut")).to_string();
                body.extend([&line[..], b"\n", good.as_bytes(), b"\n"].concat());
                right.push("accepted");
            }
        }
    }
    let answer = rivulet.client().send_with(&[LINES], body).await;
    assert_eq!(answer.statuses(), right, "{}", answer.text);
    let kept = Kept::read(&rivulet).await;
    for line in &broken {
        assert!(kept.has(line), "not in quarantine: {}", String::from_utf8_lossy(line));
    }
}
