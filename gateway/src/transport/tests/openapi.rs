//! The document that the router and its description have in common.

use schemas::verdict::Code;

use super::*;
use crate::transport::api::DOCUMENT;

async fn document(stand: &Stand) -> Value {
    ask(stand, Method::GET, DOCUMENT, &[], Body::empty()).await.json
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|value| references(value, found));
        }
        Value::Array(elements) => elements.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// Each parameter is one that fits.
fn filled(path: &str) -> String {
    path.replace("{event_type}", "page_view").replace("{version}", "1").replace("{at}", "0:0")
}

#[tokio::test]
async fn a_described_path_tells_its_own_methods_and_is_described_with_its_refusals() {
    let stand = stand(GatewayConfig::default());
    let document = document(&stand).await;
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 16, "{:?}", paths.keys());
    for (path, methods) in paths {
        let mut allow = Vec::new();
        if methods.get("get").is_some() {
            allow.extend(["GET", "HEAD"]);
        }
        if methods.get("post").is_some() {
            allow.push("POST");
        }
        allow.push("OPTIONS");
        let allow = allow.join(", ");
        let asked = ask(&stand, Method::OPTIONS, &filled(path), &[], Body::empty()).await;
        assert_eq!((asked.status.as_u16(), asked.header("allow")), (204, Some(allow.as_str())), "{path}");
        let wrong = ask(&stand, Method::DELETE, &filled(path), &[], Body::empty()).await;
        assert_eq!((wrong.status.as_u16(), wrong.header("allow")), (405, Some(allow.as_str())), "{path}");
        assert_eq!(wrong.code(), "request.method_not_allowed", "{path}");
        for (method, operation) in methods.as_object().unwrap() {
            let keyless =
                ask(&stand, method.to_uppercase().parse().unwrap(), &filled(path), &[], Body::empty()).await;
            let status = keyless.status.as_str().to_owned();
            assert!(operation["responses"].get(&status).is_some(), "{method} {path} answers {status}");
        }
    }
}

#[tokio::test]
async fn the_document_holds_what_it_refers_to_and_the_limits_in_force() {
    let stand = stand(GatewayConfig { batch_events: 7, ..GatewayConfig::default() });
    let document = document(&stand).await;
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    assert_eq!(document["x-limits"]["batch_events"], 7);
    let codes = &document["components"]["schemas"]["Code"]["enum"];
    assert_eq!(codes.as_array().unwrap().len(), Code::ALL.len());
}

#[tokio::test]
async fn head_is_get_without_a_body() {
    let stand = stand(GatewayConfig::default());
    let paths = document(&stand).await["paths"].clone();
    for (path, methods) in paths.as_object().unwrap() {
        // Sockets and tails have no end, figures change, and the pixel has a test of its own.
        if methods.get("get").is_none() || ["/v1/tail", "/metrics", "/v1/pixel.gif"].contains(&path.as_str())
        {
            continue;
        }
        let get = ask(&stand, Method::GET, &filled(path), &[SECRET], Body::empty()).await;
        let head = ask(&stand, Method::HEAD, &filled(path), &[SECRET], Body::empty()).await;
        assert_eq!((head.status, head.text.as_str()), (get.status, ""), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        assert_eq!(head.header("content-length"), Some(get.text.len().to_string().as_str()), "{path}");
    }
}

#[tokio::test]
async fn a_preflight_is_told_the_methods_of_its_path() {
    let stand = stand(GatewayConfig::default());
    let preflight = [("origin", "https://any.example"), ("access-control-request-method", "POST")];
    for (path, methods) in [("/v1/events", "POST, OPTIONS"), ("/v1/limits", "GET, HEAD, OPTIONS")] {
        let answer = ask(&stand, Method::OPTIONS, path, &preflight, Body::empty()).await;
        assert_eq!(answer.header("access-control-allow-methods"), Some(methods), "{path}");
    }
}
