//! The browser's codec ([`crate::wire`]) against the types that the server writes and reads.

use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::id::{DecisionId, EventId, ProfileKey, UserId};
use crate::time::Timestamp;
use crate::verdict::{Reason, Status, Warning};
use crate::wire::{self, FrameKind, WireStatus};

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..100_u64, any::<u64>()]
}

fn millis() -> impl Strategy<Value = i64> {
    0..=i64::MAX
}

fn code() -> impl Strategy<Value = Code> {
    prop::sample::select(Code::ALL)
}

/// Text that tries to be mistaken for structure.
fn tricky() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[{}\\[\\]\",:\\\\a \n\u{1}é🐲]{0,12}",
        Just(r#"","code":"forged"#.to_owned())
    ]
}

fn verdict() -> impl Strategy<Value = Verdict> {
    use Status::{Accepted, Duplicate, Quarantined, Rejected, Retry};
    let status = prop::sample::select(&[Accepted, Duplicate, Quarantined, Rejected, Retry][..]);
    let acked = prop::sample::select(&[AckLevel::Received, AckLevel::Disk, AckLevel::Broker][..]);
    let reason = (code(), option::of(tricky()), option::of(tricky()))
        .prop_map(|(code, pointer, expected)| Reason { pointer, expected, ..Reason::new(code) });
    let warnings = prop::collection::vec(
        tricky().prop_map(|code| Warning { code, pointer: None, keyword: None, schema: None }),
        0..2,
    );
    (option::of(any::<[u8; 16]>()), status, option::of(acked), option::of(reason), warnings).prop_map(
        |(id, status, acked, reason, warnings)| Verdict {
            event_id: id.map(EventId::from_bytes),
            status,
            acked,
            reason,
            warnings,
        },
    )
}

fn decision() -> impl Strategy<Value = Decision> {
    (any::<[u8; 16]>(), tricky(), tricky(), 0.0..1.0_f64).prop_map(|(trigger, text, slot, score)| {
        let trigger = EventId::from_bytes(trigger);
        let subject = ProfileKey::user(&UserId::new(text.clone()));
        Decision {
            decision_id: DecisionId::derive("rule", "v", &subject, trigger),
            rule: text.clone(),
            version: "v".to_owned(),
            subject,
            slot,
            trigger,
            score,
            payload: json!({"title": text, "slot": "inner", "decision_id": [1]}),
            facts: Vec::new(),
            decided_at: Timestamp(1_714_055_000_000),
            expires_at: None,
        }
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    (any::<u32>(), any::<u32>(), any::<u16>(), 1..99_u8).prop_map(|(event, batch, events, depth)| Limits {
        event_bytes: event as usize,
        batch_bytes: batch as usize,
        batch_events: events.into(),
        depth: depth.into(),
        ack: AckLevel::Disk,
    })
}

fn compression() -> impl Strategy<Value = Option<Compression>> {
    prop::sample::select(&[None, Some(Compression::Gzip), Some(Compression::Zstd)][..])
}

fn server_frame() -> impl Strategy<Value = ServerFrame> {
    prop_oneof![
        ("[A-Za-z0-9_-]{0,30}", number(), any::<u32>(), millis(), limits(), compression()).prop_map(
            |(session, resumed, credit, server_time, limits, compression)| ServerFrame::Hello {
                session,
                resumed,
                credit,
                server_time,
                limits,
                compression,
            }
        ),
        (number(), number(), any::<u32>(), millis(), prop::collection::vec(verdict(), 0..6)).prop_map(
            |(seq, cumulative, credit, server_time, events)| ServerFrame::Ack {
                seq,
                cumulative,
                credit,
                server_time,
                events
            }
        ),
        decision().prop_map(|decision| ServerFrame::Decision { decision: Box::new(decision) }),
        millis().prop_map(|server_time| ServerFrame::Pong { server_time }),
        number().prop_map(|retry_after_ms| ServerFrame::Pace { retry_after_ms }),
        (code(), tricky()).prop_map(|(code, message)| ServerFrame::Error { code, message }),
    ]
}

fn same_status(status: Status) -> WireStatus {
    match status {
        Status::Accepted => WireStatus::Accepted,
        Status::Duplicate => WireStatus::Duplicate,
        Status::Quarantined => WireStatus::Quarantined,
        Status::Rejected => WireStatus::Rejected,
        Status::Retry => WireStatus::Retry,
    }
}

fn same_verdicts(read: &wire::Frame<'_>, sent: &[Verdict]) -> Result<(), TestCaseError> {
    prop_assert!(read.has_verdicts());
    let found: Vec<_> = read.verdicts().collect();
    prop_assert_eq!(found.len(), sent.len());
    for (found, sent) in found.iter().zip(sent) {
        prop_assert_eq!(found.event_id.map(str::to_owned), sent.event_id.map(|id| id.to_string()));
        prop_assert_eq!(found.status, same_status(sent.status));
        prop_assert_eq!(found.acked.and_then(AckLevel::parse), sent.acked);
        prop_assert_eq!(found.code, sent.reason.as_ref().map(|reason| reason.code.as_str()));
        prop_assert_eq!(&serde_json::from_str::<Verdict>(found.json).unwrap(), sent);
    }
    Ok(())
}

fn same_facts(read: &wire::Frame<'_>, sent: &ServerFrame) -> Result<(), TestCaseError> {
    let time = |time: &i64| u64::try_from(*time).ok();
    match sent {
        ServerFrame::Hello { session, resumed, credit, server_time, limits, compression: _ } => {
            prop_assert_eq!(read.kind, FrameKind::Hello);
            prop_assert_eq!(read.session, Some(session.as_str()));
            prop_assert_eq!((read.resumed, read.credit), (Some(*resumed), Some(u64::from(*credit))));
            prop_assert_eq!(read.server_time, time(server_time));
            let found = read.limits.unwrap();
            prop_assert_eq!(found.event_bytes, limits.event_bytes as u64);
            prop_assert_eq!(found.batch_bytes, limits.batch_bytes as u64);
            prop_assert_eq!(found.batch_events, limits.batch_events as u64);
            prop_assert_eq!(found.depth, limits.depth as u64);
        }
        ServerFrame::Ack { seq, cumulative, credit, server_time, events } => {
            prop_assert_eq!(read.kind, FrameKind::Ack);
            prop_assert_eq!((read.seq, read.cumulative), (Some(*seq), Some(*cumulative)));
            prop_assert_eq!((read.credit, read.server_time), (Some(u64::from(*credit)), time(server_time)));
            same_verdicts(read, events)?;
        }
        ServerFrame::Decision { decision } => {
            prop_assert_eq!(read.kind, FrameKind::Decision);
            prop_assert_eq!(serde_json::from_str::<Value>(read.decision.unwrap()).unwrap(), json!(decision));
            prop_assert_eq!(read.decision_id.map(str::to_owned), Some(decision.decision_id.to_string()));
            if !serde_json::to_string(&decision.slot).unwrap().contains('\\') {
                prop_assert_eq!(read.slot, Some(decision.slot.as_str()));
            }
        }
        ServerFrame::Pong { server_time } => {
            prop_assert_eq!((read.kind, read.server_time), (FrameKind::Pong, time(server_time)));
        }
        ServerFrame::Pace { retry_after_ms } => {
            prop_assert_eq!((read.kind, read.retry_after_ms), (FrameKind::Pace, Some(*retry_after_ms)));
        }
        ServerFrame::Error { code, .. } => {
            prop_assert_eq!((read.kind, read.code), (FrameKind::Error, Some(code.as_str())));
        }
    }
    Ok(())
}

#[test]
fn the_answer_of_the_rest_path_is_read_too() {
    let answer = r#" {"events" : [ {"status":"rejected","reason":{"expected":"\"code\":\"x\"","code":"schema.invalid"},"event_id":"e1"},
        {"event_id":"e2","status":"accepted","acked":"disk"},{"event_id":"e3","status":"thought_up_later"}], "more":[{}]} "#;
    let frame = wire::Frame::read(answer).unwrap();
    let found: Vec<_> = frame.verdicts().map(|it| (it.event_id, it.status, it.acked, it.code)).collect();
    assert_eq!(
        found,
        [
            (Some("e1"), WireStatus::Rejected, None, Some("schema.invalid")),
            (Some("e2"), WireStatus::Accepted, Some("disk"), None),
            (Some("e3"), WireStatus::Unknown, None, None),
        ]
    );
    let refused = wire::Frame::read(r#"{"error":{"code":"key.unknown","message":"…"}}"#).unwrap();
    assert_eq!(
        (refused.code, refused.has_verdicts(), refused.verdicts().count()),
        (Some("key.unknown"), false, 0)
    );
}

#[test]
fn what_is_no_answer_of_ours_is_not_taken_for_one() {
    for text in [
        "",
        "<html>ok</html>",
        "[]",
        "null",
        "{",
        r#"{"events":[{"event_id":"e1","status":"accepted"}"#,
        "{} x",
        "{\"a\"}",
    ] {
        assert_eq!(wire::Frame::read(text), None, "{text}");
    }
    assert_eq!(wire::Frame::read("{}").unwrap().verdicts().count(), 0);
    assert!(!wire::Frame::read(r#"{"events":{}}"#).unwrap().has_verdicts());
    let odd = r#"{"type":"ack","seq":-1,"credit":1.5,"cumulative":99999999999999999999}"#;
    let odd = wire::Frame::read(odd).unwrap();
    assert_eq!((odd.kind, odd.seq, odd.credit, odd.cumulative), (FrameKind::Ack, None, None, None));
}

#[test]
fn the_first_compression_that_both_know_is_agreed_on() {
    let agree =
        |names: &[&str]| Compression::agree(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(agree(&[]), None);
    assert_eq!(agree(&["br", "lz4"]), None);
    assert_eq!(agree(&["br", "zstd", "gzip"]), Some(Compression::Zstd));
    assert_eq!(agree(&["gzip", "zstd"]), Some(Compression::Gzip));
    for known in [Compression::Gzip, Compression::Zstd] {
        assert_eq!(serde_json::to_value(known).unwrap(), known.name());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_browser_reads_what_the_server_writes(frame in server_frame(), pretty in any::<bool>(), turned in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&frame).unwrap() } else { serde_json::to_string(&frame).unwrap() };
        let read = wire::Frame::read(&text).ok_or_else(|| TestCaseError::fail(text.clone()))?;
        same_facts(&read, &frame)?;
        // Another order, and a member of a later version.
        let Value::Object(members) = serde_json::to_value(&frame).unwrap() else { unreachable!() };
        let mut parts: Vec<String> = members.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
        parts.push(r#""later":{"type":"x","seq":[{"credit":7}]}"#.to_owned());
        if turned {
            parts.reverse();
        }
        let text = format!("{{{}}}", parts.join(","));
        same_facts(&wire::Frame::read(&text).ok_or_else(|| TestCaseError::fail(text.clone()))?, &frame)?;
    }

    #[test]
    fn the_server_reads_what_the_browser_writes(key in option::of(tricky()), sdk in option::of(tricky()), resume in option::of(tricky())) {
        let mut text = String::new();
        wire::hello_frame(&mut text, key.as_deref(), sdk.as_deref(), resume.as_deref());
        prop_assert_eq!(&serde_json::from_str::<Value>(&text).unwrap()["type"], "hello");
        prop_assert_eq!(serde_json::from_str::<ClientHello>(&text).unwrap(), ClientHello { key, sdk, resume, compression: Vec::new() });
    }

    #[test]
    fn events_arrive_as_they_were_handed_over(seq in any::<u32>(), sent_at in 0..1_u64 << 52, lost in any::<u32>(), texts in prop::collection::vec(tricky(), 0..5)) {
        let events: Vec<String> = texts.iter().map(|text| json!({"event_type": text}).to_string()).collect();
        let expected: Vec<&[u8]> = events.iter().map(String::as_bytes).collect();
        for seq in [Some(seq), None] {
            let mut text = String::new();
            wire::batch_head(&mut text, seq, sent_at as f64);
            if lost > 0 {
                wire::push_discarded(&mut text, true, "a", "queue.full", lost);
                wire::push_discarded(&mut text, false, "b", "event.expired", 1);
                text.push(']');
            }
            wire::push_events(&mut text, events.iter().map(String::as_str));
            let value: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&value["sent_at"], &json!(sent_at));
            prop_assert_eq!(value.get("seq").cloned(), seq.map(|seq| json!(seq)));
            prop_assert_eq!(value.get("type").cloned(), seq.map(|_| json!("batch")));
            if lost > 0 {
                let reports: Vec<Discarded> = serde_json::from_value(value["discarded"].clone()).unwrap();
                prop_assert_eq!((reports.len(), reports[0].events, reports[1].code.as_str()), (2, u64::from(lost), "event.expired"));
            }
            let Ok(crate::json::Body::Many { events, .. }) = crate::json::split(text.as_bytes(), 9) else {
                return Err(TestCaseError::fail(text));
            };
            prop_assert_eq!(&events, &expected);
        }
    }

    #[test]
    fn strings_and_numbers_are_written_as_serde_writes_them(text in tricky(), number in 0..1_u64 << 53) {
        let mut out = String::new();
        wire::push_string(&mut out, &text);
        prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        for number in [number, number % 2_000_000_000, number % 11] {
            let mut out = String::new();
            wire::push_number(&mut out, number as f64);
            prop_assert_eq!(out, number.to_string());
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in prop_oneof![any::<String>(), "[{}\\[\\]\",: \\\\a1é]{0,40}"]) {
        if let Some(frame) = wire::Frame::read(&text) {
            let _ = frame.verdicts().count();
        }
        let _ = wire::member_text(&text, "a");
    }
}
