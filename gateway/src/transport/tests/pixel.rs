//! `GET /v1/pixel.gif`.

use super::*;

const VIEW: &str = "/v1/pixel.gif?key=wk_dev&event_type=page_view&user_id=u&metadata.path=%2Fsale";

async fn look(stand: &Stand, method: Method, uri: &str, headers: &[(&str, &str)]) -> Answer {
    ask(stand, method, uri, headers, Body::empty()).await
}

#[tokio::test]
async fn a_look_is_one_event_and_nothing_else_is() {
    let stand = stand(GatewayConfig::default());
    let seen = look(&stand, Method::GET, VIEW, &[]).await;
    assert_eq!((seen.status.as_u16(), seen.header("content-type")), (200, Some("image/gif")));
    assert_eq!(seen.header("cache-control"), Some("no-store"));
    assert!(seen.text.starts_with("GIF89a"), "{}", seen.text);
    let head = look(&stand, Method::HEAD, VIEW, &[]).await;
    assert_eq!((head.status, head.text.as_str()), (seen.status, ""));
    for name in ["content-type", "cache-control", "content-length", "vary"] {
        assert_eq!(head.header(name), seen.header(name), "{name}");
    }
    for header in [("sec-purpose", "prefetch;prerender"), ("purpose", "prefetch"), ("x-moz", "prefetch")] {
        let turned_away = look(&stand, Method::GET, VIEW, &[header]).await;
        assert_eq!(
            (turned_away.status.as_u16(), turned_away.header("cache-control")),
            (204, Some("no-store"))
        );
    }
    assert_eq!(look(&stand, Method::OPTIONS, VIEW, &[]).await.status, 204);
    let post = look(&stand, Method::POST, VIEW, &[]).await;
    assert_eq!((post.status.as_u16(), post.header("allow")), (405, Some("GET, HEAD, OPTIONS")));
    for method in [Method::HEAD, Method::GET] {
        let wrong = look(&stand, method, "/v1/events", &[KEY]).await;
        assert_eq!((wrong.status.as_u16(), wrong.header("allow")), (405, Some("POST, OPTIONS")));
    }
    let records = stand.log.records(Topic::Events);
    assert_eq!(records.len(), 1);
    assert_eq!(value(&records[0])["metadata"], json!({"path": "/sale"}));
    assert!(stand.log.records(Topic::Quarantine).is_empty());
}

#[tokio::test]
async fn a_pixel_says_by_its_status_what_became_of_the_event() {
    let stand = stand(GatewayConfig::default());
    let bad = VIEW.replace("user_id=u", "user_id=null");
    for method in [Method::HEAD, Method::GET] {
        let answer = look(&stand, method, &bad, &[]).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (422, Some("image/gif")));
    }
    assert_eq!(stand.log.records(Topic::Quarantine).len(), 1);
    let unknown = look(&stand, Method::GET, "/v1/pixel.gif?key=wk_no&event_type=x&user_id=u", &[]).await;
    assert_eq!((unknown.status.as_u16(), unknown.code()), (401, "key.unknown"));
    assert_eq!(unknown.header("cache-control"), Some("no-store"));
    let secret = look(&stand, Method::GET, "/v1/pixel.gif?key=sk_dev&event_type=x&user_id=u", &[]).await;
    assert_eq!(secret.status, 401, "a secret key never travels in a URL");
    let twice = look(&stand, Method::GET, &format!("{VIEW}&user_id=v"), &[]).await;
    assert_eq!(twice.status, 422);
    stand.log.fail(Some(AppendError::Full));
    let full = look(&stand, Method::GET, VIEW, &[]).await;
    assert_eq!((full.status.as_u16(), full.header("retry-after")), (503, Some("2")));
}

#[tokio::test]
async fn a_time_whose_plus_was_not_escaped_means_the_same_instant() {
    let stand = stand(GatewayConfig::default());
    for time in ["2024-03-31T02:30:00+02:00", "2024-03-31T02:30:00%2B02:00"] {
        assert_eq!(look(&stand, Method::GET, &format!("{VIEW}&timestamp={time}"), &[]).await.status, 200);
    }
    for record in stand.log.records(Topic::Events) {
        assert_eq!(value(&record)["receipt"]["occurred_at"], "2024-03-31T00:30:00.000Z");
    }
}
