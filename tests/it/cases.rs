//! Cases from real bug reports about systems of this kind, each with the right value asserted.

use std::collections::HashMap;

use serde_json::{Value, json};
use tests::client;
use tests::damage::{self as files, Damage};
use tests::events::{self, Random, of_device, of_user};
use tests::faults::{self, SOON, Timed};
use tests::log::{self, Record};
use tests::rivulet::{Options, Rivulet};

const LINES: (&str, &str) = ("content-type", "application/x-ndjson");
const MINUTE: i64 = 60_000;

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
    let quarantine = log::cat(&rivulet, "rivulet.quarantine").await;
    let raw = |record: &Record| crate::accept::holds(record, &broken);
    assert!(quarantine.iter().any(raw), "the raw bytes are not in quarantine: {quarantine:?}");
}

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
    let stated = answer.statuses() == ["accepted"] || answer.code() == "body.compression";
    assert!(stated, "zeros behind: {}", answer.text);

    let answer = rivulet.client().send_with(&[LINES, gzip], line()).await;
    assert_eq!((answer.status, answer.code()), (400, "body.compression"), "plain: {}", answer.text);
    let answer = rivulet
        .client()
        .send_with(&[LINES, ("content-encoding", "X-GZIP")], client::gzip(line().as_bytes()))
        .await;
    assert_eq!(answer.statuses(), ["accepted"], "{}", answer.text);
    crate::hostile::well(&mut rivulet).await;
}

/// C09: nothing a client sends can set what the gateway notes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_says_what_the_gateway_saw_whatever_the_sender_planted() {
    let _timed = Timed::new("C09");
    let rivulet = Rivulet::up().await;
    let minimal = r#"{"event_type":"page_view","user_id":"c09"}"#;
    let planted = [
        r#"{"event_type":"page_view","user_id":"c09","received_at":"1999-01-01T00:00:00Z","source":"admin","ip":"1.2.3.4"}"#.to_owned(),
        r#"{"event_type":"page_view","user_id":"c09","schema":"add_to_cart@999"}"#.to_owned(),
        r#"{"event_type":"page_view","user_id":"c09","recei\u0076ed_at":"1999-01-01T00:00:00Z"}"#.to_owned(),
        r#"{"event_type":"page_view","user_id":"c09","rec\u0065ipt":{"source":"admin"}}"#.to_owned(),
        r#"{"receipt":{"source":"admin"},"event_type":"page_view","user_id":"c09"}"#.to_owned(),
        r#"{"event_type":"page_view","user_id":"c09","metadata":{"receipt":{"source":"admin"}}}"#.to_owned(),
        format!("{minimal}   "),
        format!("{}\n\t}}", minimal.strip_suffix('}').unwrap()),
        minimal.to_owned(),
        format!("[{minimal}\n]\n"),
    ];
    let before = events::now_millis();
    let mut accepted = 0;
    for body in &planted {
        let answer = rivulet.client().send(body.clone()).await;
        assert!([200, 422].contains(&answer.status), "{body}: {}", answer.text);
        if answer.status == 200 {
            accepted += 1;
        } else {
            let code = answer.verdicts()[0]["reason"]["code"].as_str().unwrap();
            assert!(
                ["event.reserved_field", "schema.version_unknown"].contains(&code),
                "{body}: {}",
                answer.text
            );
        }
    }
    assert!(accepted >= 5, "lawful events were refused");
    let records = log::events(&rivulet).await;
    assert_eq!(records.len(), accepted);
    for record in &records {
        // Two spellings of a name at the top would be two members of which a parser keeps either.
        let names = top_level_names(record.raw_value());
        assert_eq!(names.iter().filter(|name| *name == "receipt").count(), 1, "{}", record.line);
        let receipt = &record.value["receipt"];
        assert_eq!(receipt["source"], "web", "{}", record.line);
        assert!(receipt["received_at"].as_str().unwrap() > "2025", "{}", record.line);
        assert_ne!(receipt["ip"], "1.2.3.4", "{}", record.line);
        assert_eq!(receipt["schema"], "page_view@1", "{}", record.line);
        assert_eq!(record.headers["ce_source"], "web", "{}", record.line);
    }
    assert!(before <= events::now_millis());
}

/// C12: times that are almost right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_is_read_as_what_it_obviously_means_or_refused_by_pointer() {
    let _timed = Timed::new("C12");
    let rivulet = Rivulet::up().await;
    let times: [(Value, &[&str]); 10] = [
        (json!("2024-03-31T02:30:00+02"), &["2024-03-31T00:30:00.000Z"]),
        (json!("2024-03-31 02:30:00"), &["2024-03-31T02:30:00.000Z"]),
        (json!("1711845000000"), &["2024-03-31T00:30:00.000Z"]),
        (json!(1_711_845_000), &["2024-03-31T00:30:00.000Z"]),
        (json!(1_711_845_000_123_456_i64), &["2024-03-31T00:30:00.123Z"]),
        (json!(0), &[]),
        (json!(-1), &[]),
        (json!("275760-09-13T00:00:00Z"), &[]),
        (json!("2024-02-30T00:00:00Z"), &[]),
        (json!("2016-12-31T23:59:60Z"), &["2016-12-31T23:59:59.000Z", "2017-01-01T00:00:00.000Z"]),
    ];
    let mut random = Random::new(21);
    let batch: Vec<Value> = times
        .iter()
        .map(|(time, _)| {
            let mut event = events::page_view(&mut random, &of_user("c12"));
            event["timestamp"] = time.clone();
            event
        })
        .collect();
    let answer = rivulet.client().send(events::array(&batch)).await;
    assert!([200, 207].contains(&answer.status), "{}", answer.text);
    assert_eq!(answer.verdicts().len(), 10);
    let records = log::events(&rivulet).await;
    for (((time, meant), event), verdict) in times.iter().zip(&batch).zip(answer.verdicts()) {
        if verdict["status"] == "accepted" {
            let occurred =
                log::find(&records, events::id(event)).unwrap().value["receipt"]["occurred_at"].clone();
            assert!(meant.contains(&occurred.as_str().unwrap()), "{time} was read as {occurred}");
        } else {
            assert_eq!(verdict["reason"]["pointer"], "/timestamp", "{time}: {verdict}");
        }
    }

    let ahead =
        events::at(events::page_view(&mut random, &of_user("c12")), events::now_millis() + 24 * 60 * MINUTE);
    let answer = rivulet.client().send(ahead.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let records = log::events(&rivulet).await;
    let record = log::find(&records, events::id(&ahead)).unwrap();
    let receipt = &record.value["receipt"];
    assert!(receipt["clamped_from"].is_string(), "the time as sent is kept: {receipt}");
    assert_eq!(record.value["timestamp"], ahead["timestamp"]);
    let (occurred, received) = (millis(&receipt["occurred_at"]), millis(&receipt["received_at"]));
    assert!(occurred <= received + MINUTE, "{receipt}");

    // A device whose clock is an hour fast: `sent_at` gives the error away.
    let now = events::now_millis();
    let skewed = events::at(events::page_view(&mut random, &of_user("c12")), now + 60 * MINUTE - 5_000);
    rivulet.client().send(json!({ "sent_at": now + 60 * MINUTE, "events": [skewed] }).to_string()).await;
    let records = log::events(&rivulet).await;
    let occurred = millis(&log::find(&records, events::id(&skewed)).unwrap().value["receipt"]["occurred_at"]);
    assert!(
        (occurred - (now - 5_000)).abs() < 5_000,
        "corrected by sent_at: off by {} ms",
        occurred - (now - 5_000)
    );
}

/// C14: digits stay digits, and a magic key of a library is a key like any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_keep_their_digits_on_the_log_in_the_profile_and_as_keys_of_windows() {
    let _timed = Timed::new("C14");
    let rules = "
rules:
  - name: same_order
    on: x_order
    when: { count: x_order, by: metadata.order, within: 30m, at_least: 2 }
    decide: { slot: order, payload: { title: \"again {order}\" } }
last_values:
  - { name: order, from: metadata.order, on: x_order }
";
    let mut rivulet = Rivulet::with(Options::default().rules(rules)).await;
    let metadata = r#"{"order":9007199254740993,"big":18446744073709551617,"f":9007199254740991.0,"z":-0.0,"e":1e2,"s":0.1}"#;
    let event =
        |metadata: &str| format!(r#"{{"event_type":"x_order","user_id":"c14","metadata":{metadata}}}"#);
    let forged = r#"{"order":{"$serde_json::private::Number":"7"}}"#;
    let cart = |quantity: &str| {
        format!(
            r#"{{"event_type":"add_to_cart","user_id":"c14","metadata":{{"product_id":"p","quantity":{quantity}}}}}"#
        )
    };
    let endless = cart("1e400");
    let magic = cart(r#"{"$serde_json::private::Number":"7"}"#);
    let raw = cart(r#"{"$serde_json::private::RawValue":"7"}"#);
    let body = format!("[{},{},{endless},{magic},{raw}]", event(metadata), event(forged));
    let answer = rivulet.client().send(body).await;
    assert_eq!(
        answer.statuses(),
        ["accepted", "accepted", "rejected", "rejected", "rejected"],
        "{}",
        answer.text
    );
    assert!(answer.verdicts()[2]["reason"]["code"].is_string(), "{}", answer.text);
    for forged in [3, 4] {
        assert_eq!(answer.verdicts()[forged]["reason"]["keyword"], "type", "{}", answer.text);
        assert_eq!(answer.verdicts()[forged]["reason"]["pointer"], "/metadata/quantity", "{}", answer.text);
    }
    let records = log::events(&rivulet).await;
    assert!(records[0].line.contains(metadata), "{}", records[0].line);
    assert!(records[1].line.contains(forged), "{}", records[1].line);

    for order in ["9007199254740992", "9007199254740993"] {
        rivulet.client().send(event(&format!(r#"{{"order":{order}}}"#))).await;
    }
    let traits = r#"{"event_type":"identify","user_id":"c14","metadata":{"traits":{"order":9007199254740993,"deep":{"n":18446744073709551617}}}}"#;
    assert_eq!(rivulet.secret().send(traits).await.status, 200);
    let text = faults::eventually("the profile has all of it", SOON, async || {
        let answer = rivulet.secret().get("/v1/profiles/user:c14").await.ok()?;
        (answer.json["counters"]["identify"] == 1).then_some(answer.text)
    });
    let text = text.await;
    assert!(text.contains("9007199254740993") && text.contains("18446744073709551617"), "{text}");
    let decisions: Vec<Record> =
        faults::eventually("the second order of one number is decided", SOON, async || {
            let found = log::cat(&rivulet, "rivulet.decisions").await;
            (!found.is_empty()).then_some(found)
        })
        .await;
    assert_eq!(decisions.len(), 1, "…992 and …993 are two keys: {decisions:?}");
    assert!(decisions[0].line.contains("9007199254740993"), "{}", decisions[0].line);
    assert!(!decisions[0].line.contains("9007199254740992"), "{}", decisions[0].line);
    crate::hostile::well(&mut rivulet).await;
}

/// C39: whatever a crash left of the files, the next start is ready, keeps what is whole and stops when asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn torn_and_missing_files_cost_what_they_held_and_never_a_start() {
    let _timed = Timed::new("C39");
    let mut random = Random::seeded("C39");
    let mut rivulet =
        Rivulet::with(Options::default().set("log", "segment_bytes", 65_536).set("log", "partitions", 2))
            .await;
    let sent: Vec<Value> = (0..300).map(|_| events::page_view(&mut random, &of_user("c39"))).collect();
    for event in &sent {
        assert_eq!(rivulet.client().send(event.to_string()).await.status, 200);
    }
    rivulet.kill();
    let journal = files::journal(&rivulet.data());
    files::copy(&rivulet.data(), &rivulet.path("pristine"));
    assert!(files::segments(&journal).len() >= 3, "several segments are needed");

    let cuts = [1, 7, 33, 64, 700]
        .map(|bytes| (format!("the last segment is {bytes} bytes short"), Damage::Cut(bytes)));
    let others = [
        ("the last segment is empty", Damage::Empty),
        ("zeros follow the last record", Damage::ZerosBehind(512)),
        ("the end of the last segment is zeros", Damage::ZerosOver(100)),
        ("the newest finished segment is gone", Damage::RemoveFinished),
        ("a byte in the middle is flipped", Damage::Flip),
        ("the state file is gone", Damage::RemoveState),
        ("the indexes are gone", Damage::RemoveIndexes),
    ];
    for (name, damage) in cuts.into_iter().chain(others.map(|(name, damage)| (name.to_owned(), damage))) {
        std::fs::remove_dir_all(rivulet.data()).unwrap();
        files::copy(&rivulet.path("pristine"), &rivulet.data());
        files::apply(&journal, &damage);
        rivulet.start().await;
        assert!(rivulet.ready_after.as_secs() < 5, "{name}: ready after {:?}", rivulet.ready_after);

        let records = log::events(&rivulet).await;
        let kept: Vec<usize> = sent
            .iter()
            .enumerate()
            .filter(|(_, event)| log::find(&records, events::id(event)).is_some())
            .map(|(place, _)| place)
            .collect();
        let lost = sent.len() - kept.len();
        let hole = kept.iter().enumerate().find(|(n, place)| n != *place).map_or(kept.len(), |(n, _)| n);
        assert!(
            kept[hole..].windows(2).all(|pair| pair[1] == pair[0] + 1),
            "{name}: more than one hole: {kept:?}"
        );
        let (most, inside) = damage.costs();
        assert!(lost <= most, "{name}: {lost} events lost, at most {most} were damaged");
        assert!(inside || hole == kept.len(), "{name}: a hole at {hole} although only the end was damaged");

        // The sender, who had no answer or is in doubt, sends all of it again: each counts once.
        for chunk in sent.chunks(100) {
            assert_eq!(rivulet.client().send(events::array(chunk)).await.status, 200, "{name}");
        }
        rivulet.client().send(events::product_view(&mut random, &of_user("c39"), "tea").to_string()).await;
        let profile = faults::until(SOON, async || {
            rivulet.profile("user:c39").await.filter(|profile| profile["counters"]["product_view"] == 1)
        });
        let profile = profile.await.unwrap_or_else(|| panic!("{name}: the processor stands still"));
        assert_eq!(profile["counters"]["page_view"], sent.len(), "{name}: {profile}");
        let (status, took) = rivulet.terminate(SOON).await;
        assert!(status.success() && took.as_secs_f64() < 5.0, "{name}: {status} after {took:?}");
        eprintln!("C39: {name}: ready after {:?}, {lost} lost, stopped after {took:?}", rivulet.ready_after);
    }
}

/// C43: sessions of one person never overlap, whatever comes late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_event_joins_its_session_and_never_makes_one_that_overlaps() {
    let _timed = Timed::new("C43");
    let rivulet = Rivulet::with(Options::default().set("log", "partitions", 1)).await;
    let mut random = Random::new(22);
    let ten = events::now_millis() - 55 * MINUTE;
    // The late event, then how many events the session has, and its first and last minute.
    let variants = [
        ("18", 18 * MINUTE, 2, 0, 18 * MINUTE),
        ("edge", 30 * MINUTE, 2, 0, 30 * MINUTE),
        ("beyond", 30 * MINUTE + 1, 1, 30 * MINUTE + 1, 30 * MINUTE + 1),
        ("before", -15 * MINUTE, 2, -15 * MINUTE, 0),
    ];
    for (name, late, count, first, last) in variants {
        let (who, others) = (format!("c43-{name}"), format!("c43-{name}-others"));
        let mut one = async |user: &str, minutes: i64| {
            let event = events::at(events::page_view(&mut random, &of_user(user)), ten + minutes);
            assert_eq!(rivulet.secret().send(event.to_string()).await.status, 200);
        };
        one(&who, 0).await;
        one(&others, 31 * MINUTE).await;
        one(&who, late).await;
        one(&others, 49 * MINUTE).await;
        let profile = faults::eventually("both events are counted", SOON, async || {
            rivulet
                .profile(&format!("user:{who}"))
                .await
                .filter(|profile| profile["counters"]["page_view"] == 2)
        });
        let session = profile.await["session"].clone();
        assert_eq!(session["events"], count, "{name}: {session}");
        assert_eq!(millis(&session["started_at"]), ten + first, "{name}: {session}");
        assert_eq!(millis(&session["last_at"]), ten + last, "{name}: {session}");
    }

    // Every state that was ever told: sessions of one person by id, as last told, do not overlap and have no negative length.
    let mut sessions: HashMap<(String, String), (i64, i64)> = HashMap::new();
    let changes = log::cat(&rivulet, "rivulet.profiles").await;
    for session in changes.iter().flat_map(|record| {
        let key = record.key.clone();
        sessions_in(&record.value).into_iter().map(move |session| (key.clone(), session))
    }) {
        let (key, session) = session;
        let (start, end) = (millis(&session["started_at"]), millis(&session["last_at"]));
        assert!(start <= end, "negative length: {session}");
        sessions.insert((key, session["id"].as_str().unwrap().to_owned()), (start, end));
    }
    assert!(!sessions.is_empty(), "profile changes name sessions: {changes:?}");
    for ((key, id), (start, end)) in &sessions {
        for ((other_key, other_id), (other_start, other_end)) in &sessions {
            let overlap = key == other_key && id != other_id && start <= other_end && other_start <= end;
            assert!(!overlap, "{key}: {start}-{end} and {other_start}-{other_end}");
        }
    }
}

/// C52: the edges of a sliding window.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_window_of_a_rule_is_half_open_and_counts_events_of_one_instant_as_many() {
    let _timed = Timed::new("C52");
    let rules = "
rules:
  - name: three_views
    on: product_view
    when: { count: product_view, by: metadata.category, within: 30m, at_least: 3 }
    decide: { slot: window, payload: { title: \"{category}\" } }
";
    let rivulet = Rivulet::with(Options::default().rules(rules)).await;
    let mut random = Random::new(23);
    let noon = events::now_millis() - 40 * MINUTE;
    let view = |random: &mut Random, user: &str, after: i64| {
        events::at(events::product_view(random, &of_user(user), "shoes"), noon + after)
    };
    // Who, the three moments, one batch or three, how often it fires at least and at most.
    let people: [(&str, [i64; 3], bool, usize, usize); 6] = [
        ("c52-u1", [0, 0, 30 * MINUTE - 1], false, 1, 1),
        ("c52-u2", [0, 0, 30 * MINUTE], false, 0, 0),
        ("c52-u3", [0, 0, 30 * MINUTE + 1], false, 0, 0),
        ("c52-u4", [5, 5, 5], true, 1, 1),
        ("c52-u5", [29 * MINUTE, 0, 1], false, 0, 1),
        ("c52-u6", [0, 0, 0], false, 1, 1),
    ];
    for (who, moments, together, _, _) in &people {
        let views: Vec<Value> = moments.iter().map(|after| view(&mut random, who, *after)).collect();
        let bodies = if *together {
            vec![events::array(&views)]
        } else {
            views.iter().map(Value::to_string).collect()
        };
        for body in bodies {
            let answer = rivulet.secret().send(body).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
        }
    }
    for (who, _, _, least, most) in &people {
        let profile = faults::eventually("all three views are counted", SOON, async || {
            rivulet
                .profile(&format!("user:{who}"))
                .await
                .filter(|profile| profile["counters"]["product_view"] == 3)
        });
        let profile = profile.await;
        let decided = profile["decisions"].as_array().unwrap();
        assert!((*least..=*most).contains(&decided.len()), "{who} fired {} times: {profile}", decided.len());
        let told = faults::eventually("what the profile names is on the topic", SOON, async || {
            let records = log::cat(&rivulet, "rivulet.decisions").await;
            let told: Vec<Record> = records.into_iter().filter(|record| record.key == *who).collect();
            (told.len() >= decided.len()).then_some(told)
        });
        for record in told.await {
            for fact in record.value["facts"].as_array().into_iter().flatten() {
                if let (Some(count), Some(events)) = (fact["value"].as_u64(), fact["events"].as_array()) {
                    assert_eq!(
                        usize::try_from(count).unwrap(),
                        events.len(),
                        "the count equals the facts listed: {fact}"
                    );
                }
            }
        }
    }
    let devices = [of_device("c52-d1"), of_device("c52-d2")];
    for device in &devices {
        let views: Vec<Value> = (0..2).map(|_| events::product_view(&mut random, device, "shoes")).collect();
        rivulet.client().send(events::array(&views)).await;
    }
    let records = log::cat(&rivulet, "rivulet.decisions").await;
    assert!(
        !records.iter().any(|record| record.key.starts_with("c52-d")),
        "two views of two devices are not three"
    );
}

fn millis(time: &Value) -> i64 {
    tests::oracle::millis(time.as_str().unwrap_or_else(|| panic!("no time: {time}")))
}

// Whatever looks like a session anywhere in a profile change.
fn sessions_in(value: &Value) -> Vec<Value> {
    match value {
        Value::Object(members) if members.contains_key("started_at") && members.contains_key("last_at") => {
            vec![value.clone()]
        }
        Value::Object(members) => members.values().flat_map(sessions_in).collect(),
        Value::Array(elements) => elements.iter().flat_map(sessions_in).collect(),
        _ => Vec::new(),
    }
}

// Names of the outermost object, repeats included.
fn top_level_names(json: &str) -> Vec<String> {
    let (mut names, mut depth, mut string, mut name, mut expects) =
        (Vec::new(), 0_i32, None::<usize>, None, false);
    let bytes = json.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match (string, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(start), b'"') => {
                name = (depth == 1 && expects).then(|| json[start..=at].to_owned());
                string = None;
            }
            (None, b'"') => string = Some(at),
            (None, b':') if depth == 1 => {
                names.extend(name.take().and_then(|name| serde_json::from_str::<String>(&name).ok()));
                expects = false;
            }
            (None, b',') if depth == 1 => expects = true,
            (None, b'{' | b'[') => {
                depth += 1;
                expects = depth == 1;
            }
            (None, b'}' | b']') => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    names
}
