//! NDJSON bodies longer than a batch.

use futures_util::{StreamExt as _, stream};

use super::*;

const LINES: (&str, &str) = ("content-type", "application/x-ndjson");

/// A gateway whose batches are small.
fn small() -> Stand {
    stand(GatewayConfig {
        batch_events: 10,
        event_bytes: 400,
        batch_bytes: 1_000,
        ..GatewayConfig::default()
    })
}

type Piece = Result<String, std::io::Error>;

fn in_pieces(text: &str, bytes: usize) -> Body {
    let pieces: Vec<Piece> =
        text.as_bytes().chunks(bytes).map(|piece| Ok(String::from_utf8_lossy(piece).into_owned())).collect();
    Body::from_stream(stream::iter(pieces))
}

#[tokio::test]
async fn a_body_of_many_batches_is_taken_in_order_and_answered_with_counts() {
    for pieces in [1, 7, 400, 1_000_000] {
        let stand = small();
        let lines: Vec<String> = (0..95)
            .map(|n| match n % 10 {
                3 => BAD.to_owned(),
                4 => "not json".to_owned(),
                _ => GOOD.replace("\"u\"", &format!("\"u{n}\"")),
            })
            .collect();
        let answer = send(&stand, &[LINES], in_pieces(&lines.join("\n"), pieces)).await;
        assert_eq!(answer.status, 207, "{}", answer.text);
        assert_eq!(answer.json["counts"]["accepted"], 75, "{}", answer.text);
        assert_eq!(
            (&answer.json["counts"]["rejected"], &answer.json["complete"]),
            (&json!(20), &json!(true))
        );
        let places: Vec<u64> = answer.json["problems"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["index"].as_u64().unwrap())
            .collect();
        let right: Vec<u64> = (0..95).filter(|n| [3, 4].contains(&(n % 10))).collect();
        assert_eq!(places, right);
        let users: Vec<String> = stand
            .log
            .records(Topic::Events)
            .iter()
            .map(|record| value(record)["user_id"].as_str().unwrap().to_owned())
            .collect();
        let right: Vec<String> =
            (0..95).filter(|n| ![3, 4].contains(&(n % 10))).map(|n| format!("u{n}")).collect();
        assert_eq!(users, right, "in pieces of {pieces}");
        assert!(stand.gateway.ledger().totals("web").balances());
    }
}

#[tokio::test]
async fn a_body_of_one_batch_is_answered_as_any_other() {
    let stand = small();
    let answer = send(&stand, &[LINES], format!("{GOOD}\n\n{BAD}")).await;
    assert_eq!((answer.status.as_u16(), answer.statuses()), (207, vec!["accepted", "rejected"]));
    assert_eq!(send(&stand, &[LINES], "\n\n").await.code(), "body.empty");
    let zipped = send(&stand, &[LINES], gzip(GOOD.as_bytes())).await;
    assert_eq!(zipped.statuses(), ["accepted"], "{}", zipped.text);
}

#[tokio::test]
async fn a_line_without_end_costs_that_line_alone() {
    let stand = small();
    let body = format!("{GOOD}\n{{\"long\":\"{}\"}}\n{GOOD}\n", "x".repeat(50_000));
    let answer = send(&stand, &[LINES], in_pieces(&body, 999)).await;
    assert_eq!(
        answer.json["counts"],
        json!({"accepted": 2, "duplicate": 0, "quarantined": 0, "rejected": 1, "retry": 0})
    );
    assert_eq!(answer.json["problems"][0]["reason"]["code"], "event.too_large");
}

#[tokio::test]
async fn a_body_that_is_cut_says_what_was_taken_before() {
    let stand = small();
    let whole = format!("{GOOD}\n").repeat(25) + "{\"event_type\":\"page_view\",\"user";
    let pieces = stream::iter([Ok(whole), Err(std::io::Error::other("gone"))]);
    let answer = send(&stand, &[LINES], Body::from_stream(pieces)).await;
    assert_eq!((answer.status.as_u16(), &answer.json["complete"]), (207, &json!(false)), "{}", answer.text);
    assert_eq!(answer.json["counts"]["accepted"], 25);
    assert_eq!(answer.json["error"]["code"], "body.syntax");
    assert_eq!(stand.log.records(Topic::Events).len(), 25);
    let pieces = stream::iter([Ok(format!("{GOOD}\n{{")), Err(std::io::Error::other("gone"))]);
    let short = send(&stand, &[LINES], Body::from_stream(pieces)).await;
    assert_eq!((short.status.as_u16(), short.code()), (400, "body.syntax"));
    assert_eq!(
        stand.log.records(Topic::Events).len(),
        25,
        "a body of one batch is taken whole or not at all"
    );
}

fn coded_in_pieces(coded: &[u8], bytes: usize) -> Body {
    let pieces: Vec<_> = coded
        .chunks(bytes)
        .map(|piece| Ok::<_, std::io::Error>(bytes::Bytes::copy_from_slice(piece)))
        .collect();
    Body::from_stream(stream::iter(pieces))
}

#[tokio::test]
async fn a_compressed_body_may_be_as_long_and_what_came_before_a_damage_is_told() {
    let text = (0..95).map(|n| GOOD.replace("\"u\"", &format!("\"u{n}\"")) + "\n").collect::<String>();
    let (begin, end) = text.as_bytes().split_at(1_000);
    let mut members = [gzip(begin), gzip(end)].concat();
    let frames = zstd::bulk::compress(text.as_bytes(), 3).unwrap();
    for (name, coded) in [("gzip", &members), ("", &members), ("zstd", &frames)] {
        let stand = small();
        let headers = [LINES, ("content-encoding", name)];
        let headers = if name.is_empty() { &headers[..1] } else { &headers };
        let answer = send(&stand, headers, coded_in_pieces(coded, 50)).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text);
        assert_eq!(
            (&answer.json["counts"]["accepted"], &answer.json["complete"]),
            (&json!(95), &json!(true))
        );
        let users: Vec<_> =
            stand.log.records(Topic::Events).iter().map(|r| value(r)["user_id"].clone()).collect();
        assert_eq!(users, (0..95).map(|n| json!(format!("u{n}"))).collect::<Vec<_>>(), "{name}");
    }
    let crc = members.len() - 6;
    members[crc] ^= 1;
    let stand = small();
    let answer = send(&stand, &[LINES, ("content-encoding", "gzip")], coded_in_pieces(&members, 50)).await;
    assert_eq!((answer.status.as_u16(), &answer.json["complete"]), (207, &json!(false)), "{}", answer.text);
    assert_eq!(answer.json["error"]["code"], "body.compression");
    let taken = answer.json["counts"]["accepted"].as_u64().unwrap();
    assert!((10..95).contains(&taken), "the batch in which the damage shows is not taken: {taken}");
    assert_eq!(stand.log.records(Topic::Events).len() as u64, taken, "only what was told is on the log");
    assert!(stand.gateway.ledger().totals("web").balances());
}

#[tokio::test]
async fn a_stream_that_is_a_bomb_is_refused() {
    let stand = small();
    let headers = [LINES, ("content-encoding", "gzip")];
    let answer = send(&stand, &headers, coded_in_pieces(&gzip(&vec![b'\n'; 3 << 20]), 1_000)).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (413, "body.too_large"), "{}", answer.text);
    let unknown = send(&stand, &[LINES, ("content-encoding", "lzma")], GOOD).await;
    assert_eq!((unknown.status.as_u16(), unknown.code()), (415, "body.unsupported"));
}

#[tokio::test]
async fn whoever_reads_along_gets_each_verdict_while_it_sends() {
    let stand = small();
    let (tell, told) = tokio::sync::mpsc::channel::<Piece>(1);
    let told = stream::unfold(told, |mut told| async { told.recv().await.map(|piece| (piece, told)) });
    let request = Request::post("/v1/events")
        .header(KEY.0, KEY.1)
        .header(LINES.0, LINES.1)
        .header("accept", "application/x-ndjson")
        .body(Body::from_stream(told))
        .unwrap();
    let sender = async {
        tell.send(Ok(format!("{GOOD}\n").repeat(10))).await.unwrap();
        tell.send(Ok(format!("{GOOD}\n").repeat(10))).await.unwrap();
        tell
    };
    let (response, tell) = tokio::join!(stand.gateway.router().oneshot(request), sender);
    let mut body = response.unwrap().into_body().into_data_stream();
    let first = body.next().await.unwrap().unwrap();
    assert_eq!(first.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count(), 10);
    let second = body.next().await.unwrap().unwrap();
    assert_eq!(second.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count(), 10);
    tell.send(Ok(format!("{GOOD}\n{{\"half\":"))).await.unwrap();
    let paused = body.next().await.unwrap().unwrap();
    assert!(paused.ends_with(b"\"acked\":\"disk\"}\n"), "a line's verdict does not wait for a full batch");
    drop(tell);
    let mut rest = Vec::new();
    while let Some(piece) = body.next().await {
        rest.extend_from_slice(&piece.unwrap());
    }
    let rest = String::from_utf8(rest).unwrap();
    let last: Value = serde_json::from_str(rest.lines().last().unwrap()).unwrap();
    assert_eq!(last["summary"]["counts"]["accepted"], 21, "{rest}");
    assert_eq!(rest.lines().count(), 2, "the last line was cut off, and judged as it came: {rest}");
}

#[tokio::test]
async fn a_stream_is_read_no_faster_than_the_log_takes_it() {
    let stand = small();
    stand.log.hold_back();
    let read = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&read);
    let endless = stream::iter(0..1_000).map(move |_| {
        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Piece::Ok(format!("{GOOD}\n"))
    });
    let router = stand.gateway.router();
    let request = Request::post("/v1/events").header(KEY.0, KEY.1).header(LINES.0, LINES.1);
    let request = request.body(Body::from_stream(endless)).unwrap();
    let answered = tokio::spawn(async move { router.oneshot(request).await.unwrap().status() });
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    let waiting = read.load(std::sync::atomic::Ordering::SeqCst);
    assert!((10..=40).contains(&waiting), "{waiting} lines were read while the log stood still");
    stand.log.let_through(1_000);
    assert_eq!(answered.await.unwrap(), 200);
    assert_eq!(stand.log.records(Topic::Events).len(), 1_000);
}
