//! Other vendors' endpoints, at the vendors' own paths.
//!
//! **Invariant:** events go the way of our own: same keys, same judgement, same log, same ledger; only the words of question and
//! answer are the vendor's. What is temporary has `Retry-After`, in answers of every vendor.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use http::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use schemas::json::Limits;
use schemas::verdict::{Code, Verdict};

use super::rest::retry_after_s;
use super::{Client, Visitor, body, errors};
use crate::Gateway;
use crate::authenticate::{Credential, Key, origin, user_token};
use crate::decode::compression::{self, Cap};
use crate::decode::native::SentAt;
use crate::decode::vendor::cloudevents;
use crate::decode::vendor::{ADAPTERS, Action, Adapter, Batch, Call, Item, Reply, Told};
use crate::entropy::mint_event_id;
use crate::error::RequestError;

/// An adapter and the methods it takes at a path.
type Candidate = (&'static str, &'static Adapter);

/// The vendors' routes, without ours.
pub(super) fn router() -> Router<Arc<Gateway>> {
    let mut paths: BTreeMap<&'static str, Vec<Candidate>> = BTreeMap::new();
    for adapter in ADAPTERS {
        for (methods, path) in adapter.endpoints {
            paths.entry(path).or_default().push((methods, adapter));
        }
    }
    let mut router = Router::new();
    for (path, candidates) in paths {
        let candidates: Arc<[Candidate]> = candidates.into();
        let served = any(move |State(gateway): State<Arc<Gateway>>, request: Request| async move {
            serve(&gateway, &candidates, request).await
        });
        router = router.route(path, served.clone());
        if path.len() > 1 {
            router = router.route(&format!("{path}/"), served);
        }
    }
    for adapter in ADAPTERS {
        for (path, advice) in adapter.strays {
            let lost = || async { RequestError::new(Code::NotFound, *advice) };
            router = router.route(path, any(lost));
        }
    }
    router
}

/// `CloudEvents` that come to our own path.
pub(super) async fn cloud_events(gateway: &Arc<Gateway>, request: Request) -> Response {
    let adapter = ADAPTERS.iter().find(|adapter| adapter.name == cloudevents::ADAPTER.name);
    let candidates: Vec<Candidate> = adapter.into_iter().map(|adapter| ("POST", adapter)).collect();
    serve(gateway, &candidates, request).await
}

async fn serve(gateway: &Arc<Gateway>, candidates: &[Candidate], request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let response = match inflated(gateway, &parts, body).await {
        Ok((bytes, share)) => {
            let response = answer(gateway, candidates, &parts, &bytes, None).await;
            drop(share);
            response
        }
        Err(error) => answer(gateway, candidates, &parts, &[], Some(error)).await,
    };
    gateway.metrics.answered(response.status());
    response
}

fn cap(gateway: &Gateway) -> Cap {
    Cap { max_bytes: gateway.config.batch_bytes, max_ratio: gateway.config.inflate_ratio }
}

/// The body, read and inflated within bounds, with its share of the budget.
async fn inflated(
    gateway: &Gateway,
    parts: &Parts,
    body: Body,
) -> Result<(Vec<u8>, body::Share), RequestError> {
    if gateway.drain.has_begun() {
        body::discard(body).await;
        return Err(RequestError::new(Code::Draining, "The gateway is shutting down; send again later."));
    }
    let (bytes, mut share) = body::read(body, &gateway.config, &gateway.budget).await?;
    gateway.metrics.received_bytes.inc_by(bytes.len() as u64);
    let names = parts.headers.get_all(CONTENT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let names: Vec<&str> = names.collect();
    let plain = compression::inflate(&names.join(","), &bytes, cap(gateway))?;
    if matches!(plain, Cow::Owned(_)) {
        gateway.budget.grow(&mut share, plain.len())?;
    }
    Ok((plain.into_owned(), share))
}

async fn answer(
    gateway: &Arc<Gateway>,
    candidates: &[Candidate],
    parts: &Parts,
    bytes: &[u8],
    fault: Option<RequestError>,
) -> Response {
    let call = Call {
        method: &parts.method,
        uri: &parts.uri,
        headers: &parts.headers,
        body: bytes,
        limits: Limits { max_depth: gateway.config.depth },
        cap: cap(gateway),
        max_events: gateway.config.batch_events,
    };
    let allow = candidates.first().map_or("POST, OPTIONS", |(methods, _)| methods);
    // What is allowed is told around this, as for paths of ours; a webhook's question is the adapter's to answer.
    if parts.method == Method::OPTIONS && !parts.headers.contains_key("webhook-request-origin") {
        return errors::method_not_allowed(allow).into_response();
    }
    let takes = |methods: &str| methods.split(", ").any(|method| method == parts.method.as_str());
    let mut able = candidates.iter().filter(|(methods, _)| takes(methods)).map(|(_, adapter)| *adapter);
    let first = able.clone().next();
    let Some(adapter) = able.find(|adapter| (adapter.claims)(&call)).or(first) else {
        return errors::method_not_allowed(allow).into_response();
    };
    let told = |retry_after_s| Told { verdicts: &[], retry_after_s, now: gateway.clock.now() };
    let outcome = match fault {
        Some(error) => Err(error),
        None => act(gateway, adapter, &call, parts).await,
    };
    outcome.unwrap_or_else(|error| {
        let pause = gateway.config.retry_after_s;
        response((adapter.refuse)(&call, &error, &told(pause)), pause, error.allow)
    })
}

async fn act(
    gateway: &Arc<Gateway>,
    adapter: &Adapter,
    call: &Call<'_>,
    parts: &Parts,
) -> Result<Response, RequestError> {
    match (adapter.decode)(call)? {
        Action::Reply { credentials, reply } => {
            if !credentials.is_empty() {
                admit(gateway, &credentials, parts)?;
            }
            Ok(response(reply, gateway.config.retry_after_s, None))
        }
        Action::Take(batch) => take(gateway, batch, parts).await,
    }
}

async fn take(gateway: &Arc<Gateway>, batch: Batch, parts: &Parts) -> Result<Response, RequestError> {
    let key = admit(gateway, &batch.credentials, parts)?;
    let client =
        Client::new(gateway, Arc::clone(&key), &Visitor::new(&parts.extensions, parts.headers.clone()));
    let mut transmission = client.transmission(gateway, None, SentAt::Absent, None);
    let now = transmission.received_at;
    let mut mint = || mint_event_id(&*gateway.entropy, now).ok();
    let finished = batch.items.into_iter().map(|item| match item {
        Item::Event(draft) => draft.finish(&key.source, key.policy.ip, &mut mint),
        Item::Broken(bytes) => (bytes, SentAt::Absent),
    });
    let (events, sent_at): (Vec<_>, Vec<_>) = finished.unzip();
    transmission.each_sent_at = sent_at;
    let events: Vec<&[u8]> = events.iter().map(Vec::as_slice).collect();
    let verdicts: Vec<Verdict> = if events.is_empty() {
        Vec::new()
    } else {
        gateway.accept(&events, transmission).await.map_err(|_| {
            RequestError::new(Code::Internal, "A fault of the gateway; send again, ids make that safe.")
        })?
    };
    let retry_after_s = retry_after_s(gateway, &key, &verdicts);
    let told = Told { verdicts: &verdicts, retry_after_s, now: gateway.clock.now() };
    Ok(response((batch.answer)(&told), retry_after_s, None))
}

/// The first key that is good.
fn admit(gateway: &Gateway, credentials: &[Credential], parts: &Parts) -> Result<Arc<Key>, RequestError> {
    let keys = gateway.keys.load();
    let origin = origin(&parts.headers);
    let mut refused = None;
    for credential in credentials {
        match keys.admit(credential, origin) {
            Ok(key) => {
                return match user_token(&parts.headers) {
                    Some(token) => keys.vouch(&key, token, origin),
                    None => Ok(key),
                };
            }
            Err(error) => refused = refused.filter(|_| error.code == Code::KeyUnknown).or(Some(error)),
        }
    }
    Err(refused.unwrap_or_else(|| {
        RequestError::new(
            Code::KeyMissing,
            "The request has no write key where this vendor's clients put it.",
        )
    }))
}

fn response(reply: Reply, retry_after_s: u64, allow: Option<&'static str>) -> Response {
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    if matches!(reply.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        headers.insert(RETRY_AFTER, HeaderValue::from(retry_after_s));
    }
    if let Some(allow) = allow {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    headers.extend(reply.headers);
    response
}
