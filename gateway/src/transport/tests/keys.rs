//! What keys and tokens allow, as a client sees it.

use super::*;
use crate::KeyConfig;
use crate::config::KeyKind;
use schemas::verdict::Code;

/// A gateway whose public key may send that much.
fn limited(change: impl FnOnce(&mut KeyConfig)) -> Stand {
    let mut keys = KeyConfig::development();
    change(&mut keys[0]);
    stand(GatewayConfig { keys, ..GatewayConfig::default() })
}

fn batch(count: usize) -> String {
    format!("[{}]", vec![GOOD; count].join(","))
}

#[tokio::test]
async fn beyond_its_rate_a_key_is_told_which_events_to_send_again_and_when() {
    let stand = limited(|key| {
        key.events_per_second = Some(2);
        key.burst_events = Some(4);
    });
    let first = send(&stand, &[], batch(6)).await;
    assert_eq!((first.status.as_u16(), first.header("retry-after")), (207, Some("1")), "{}", first.text);
    assert_eq!(first.statuses(), ["accepted", "accepted", "accepted", "accepted", "retry", "retry"]);
    assert_eq!(first.json["events"][4]["reason"]["code"], "key.rate_exceeded");
    let second = send(&stand, &[], batch(4)).await;
    assert_eq!((second.status.as_u16(), second.header("retry-after")), (429, Some("2")), "{}", second.text);
    stand.clock.advance(2_000);
    assert_eq!(send(&stand, &[], batch(4)).await.status, 200);
    let totals = stand.gateway.ledger().totals("web");
    assert!(totals.balances(), "{totals:?}");
    assert_eq!((totals.received, totals.delivered, totals.discarded), (14, 8, 6));
    let secret = ask(&stand, Method::POST, "/v1/events", &[SECRET], batch(50)).await;
    assert_eq!(secret.status, 200, "one source's rate is not another's");
}

#[tokio::test]
async fn a_days_quota_is_refused_until_midnight() {
    let stand = limited(|key| key.events_per_day = Some(3));
    let answer = send(&stand, &[], batch(5)).await;
    assert_eq!(answer.json["events"][3]["reason"]["code"], "key.quota_exceeded");
    let left = 86_400 - crate::testing::NOW.as_millis() / 1_000 % 86_400;
    assert_eq!(answer.header("retry-after"), Some(left.to_string().as_str()));
    stand.clock.advance(left * 1_000);
    assert_eq!(send(&stand, &[], batch(3)).await.status, 200);
}

#[tokio::test]
async fn events_that_are_not_granted_are_named_and_neither_judged_nor_kept() {
    let stand = limited(|key| key.events_per_second = Some(1));
    let answer = send(&stand, &[], format!("[{GOOD},{EXAMPLE},{BAD}]")).await;
    assert_eq!(answer.statuses(), ["accepted", "retry", "retry"]);
    assert_eq!(answer.json["events"][1]["event_id"], "123e4567-e89b-12d3-a456-426614174000");
    assert!(stand.log.records(Topic::Quarantine).is_empty());
}

/// Mints a token with the secret key.
async fn token(stand: &Stand, wanted: Value) -> Answer {
    ask(stand, Method::POST, "/v1/tokens", &[SECRET], wanted.to_string()).await
}

const SHOP: &str = "http://localhost:5173";

#[tokio::test]
async fn a_servers_token_lets_pages_of_one_origin_send_and_speak_for_its_user() {
    let stand = limited(|key| key.require_token = true);
    let origin = ("origin", SHOP);
    let alone = send(&stand, &[origin], GOOD).await;
    assert_eq!((alone.status.as_u16(), alone.code()), (403, "key.token_required"));
    let minted =
        token(&stand, json!({"source": "web", "origin": SHOP, "user_id": "u", "lifetime_s": 60})).await;
    assert_eq!((minted.status.as_u16(), minted.header("cache-control")), (200, Some("no-store")));
    let bearer = format!("Bearer {}", minted.json["token"].as_str().unwrap());
    let with = |origin: &'static str| {
        let headers = [("authorization", bearer.clone()), ("origin", origin.to_owned())];
        let stand = &stand;
        async move {
            let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
            ask(stand, Method::POST, "/v1/events", &headers, GOOD).await
        }
    };
    assert_eq!(with(SHOP).await.status, 200);
    assert_eq!(with("http://localhost:9").await.code(), "key.origin_not_allowed");
    let record = value(&stand.log.records(Topic::Events)[0]);
    assert_eq!((&record["receipt"]["source"], &record["receipt"]["trust"]), (&json!("web"), &json!("token")));
    stand.clock.advance(60_000);
    let late = with(SHOP).await;
    assert_eq!((late.status.as_u16(), late.code()), (401, "token.expired"));
}

#[tokio::test]
async fn a_user_token_vouches_in_a_header_or_in_the_body_and_only_for_its_own_user() {
    let stand = stand(GatewayConfig::default());
    let minted = token(&stand, json!({"user_id": "u"})).await;
    let token = minted.json["token"].as_str().unwrap();
    let other = GOOD.replace("\"u\"", "\"someone else\"");
    let answer = send(&stand, &[("x-user-token", token)], format!("[{GOOD},{other}]")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = format!("{{\"events\":[{GOOD}],\"user_token\":\"{token}\"}}");
    assert_eq!(send(&stand, &[], body).await.status, 200);
    let trust: Vec<_> = stand
        .log
        .records(Topic::Events)
        .iter()
        .map(|record| value(record)["receipt"]["trust"].clone())
        .collect();
    assert_eq!(trust, ["token", "public", "token"]);
    let wrong = send(&stand, &[("x-user-token", "a.b")], GOOD).await;
    assert_eq!((wrong.status.as_u16(), wrong.code()), (401, "token.invalid"));
    let body = format!("{{\"events\":[{GOOD}],\"user_token\":7}}");
    assert_eq!(send(&stand, &[], body).await.code(), "token.invalid");
}

#[tokio::test]
async fn only_a_secret_key_mints_and_what_cannot_be_a_token_is_refused() {
    let stand = stand(GatewayConfig::default());
    let wanted = json!({"user_id": "u"}).to_string();
    let public = ask(&stand, Method::POST, "/v1/tokens", &[KEY], wanted).await;
    assert_eq!((public.status.as_u16(), public.code()), (403, "key.secret_required"));
    for wanted in [
        json!({}),
        json!({"source": "web"}),
        json!({"user_id": "u", "lifetime_s": 0}),
        json!({"user_id": "u", "lifetime_s": 86_401}),
        json!({"userid": "u"}),
        json!({"user_id": "null"}),
        json!([]),
    ] {
        let answer = token(&stand, wanted.clone()).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "request.invalid"), "{wanted}");
    }
}

#[tokio::test]
async fn a_source_whose_key_was_taken_away_or_has_ended_is_told_so() {
    let stand = limited(|key| key.expires_at = Some(crate::testing::NOW.plus_millis(1_000)));
    assert_eq!(send(&stand, &[], GOOD).await.status, 200);
    let keys = stand.gateway.keys();
    let key = keys.admit(&crate::authenticate::Credential::in_hello("wk_dev"), None).unwrap();
    let visitor = Visitor::new(&Extensions::new(), HeaderMap::new());
    let socket = Client::new(&stand.gateway, key, &visitor);
    let good = |stand: &Stand| socket.transmission(&stand.gateway, None, SentAt::Absent, None).key_is_good;
    assert!(good(&stand));
    let mut others = KeyConfig::development();
    others[0].key = "wk_other".into();
    stand.gateway.set_keys(&others).unwrap();
    assert!(!good(&stand), "a socket's key was taken away");
    let transmission = socket.transmission(&stand.gateway, None, SentAt::Absent, None);
    let verdicts = stand.gateway.accept(&[GOOD.as_bytes()], transmission).await.unwrap();
    assert_eq!(verdicts[0].reason.as_ref().unwrap().code, Code::KeyExpired);
    stand.gateway.set_keys(&KeyConfig::development()).unwrap();
    assert!(good(&stand));
    stand.clock.advance(1_000);
    assert!(!good(&stand), "its time is over");
}

#[tokio::test]
async fn broken_keys_leave_the_old_ones_and_are_counted() {
    let stand = stand(GatewayConfig::default());
    let nameless = KeyConfig::new("", "x", KeyKind::Public);
    assert!(stand.gateway.set_keys(&[nameless]).is_err());
    assert_eq!(send(&stand, &[], GOOD).await.status, 200);
    let metrics = stand.gateway.metrics_text();
    assert!(metrics.contains("rivulet_gateway_keys_reloads_total{result=\"broken\"} 1"), "{metrics}");
    assert!(metrics.contains("rivulet_gateway_keys_stale 1"), "{metrics}");
    stand.gateway.set_keys(&KeyConfig::development()).unwrap();
    assert!(stand.gateway.metrics_text().contains("rivulet_gateway_keys_stale 0"));
}
