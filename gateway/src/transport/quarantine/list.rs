//! `GET /v1/quarantine`: what was refused; `/reasons`: why, grouped; `/{partition}:{offset}`: one of them.
//!
//! **Invariant:** a request looks at no more than [`SCAN_RECORDS`] records and says where to go on, so that a full topic costs
//! many small requests instead of a large one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use broker::log::ReadError;
use http::{HeaderMap, StatusCode, Uri};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use schemas::id::SourceName;
use schemas::time::Timestamp;
use schemas::verdict::{Code, Reason};
use serde::Serialize;

use super::record::{Found, Place, Walk, body, read_one};
use crate::Gateway;
use crate::authenticate::parameter;
use crate::error::RequestError;
use crate::transport::errors;

/// Records looked at in one request.
const SCAN_RECORDS: usize = 20_000;
/// Records returned, unless `limit` says less.
const MAX_RECORDS: usize = 1_000;
/// Records returned without `limit`.
const DEFAULT_RECORDS: usize = 100;
/// Groups returned; more are summed up in `others`.
const MAX_GROUPS: usize = 1_000;

/// `limit`.
pub(super) struct Count;

impl JsonSchema for Count {
    fn schema_name() -> Cow<'static, str> {
        "Count".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": 1, "maximum": MAX_RECORDS})
    }
}

/// Which records are asked for.
struct Filter {
    code: Option<Code>,
    source: Option<String>,
    since: Option<Timestamp>,
    after: Place,
    limit: usize,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "QuarantinePage")]
pub(super) struct Page {
    records: Vec<Found>,
    /// Go on with `?after=`; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Place>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "QuarantineReasons")]
pub(super) struct Summary {
    reasons: Vec<Group>,
    /// Records whose group is not listed.
    others: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Place>,
}

/// What refusals have in common.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
struct Common {
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keyword: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<String>,
    source: SourceName,
}

#[derive(Serialize, JsonSchema)]
struct Group {
    #[serde(flatten)]
    common: Common,
    count: u64,
    first: Timestamp,
    last: Timestamp,
    /// The newest of them.
    example: Place,
}

impl Filter {
    fn of(uri: &Uri) -> Result<Self, RequestError> {
        let wrong = |what: &'static str| RequestError::new(Code::RequestInvalid, what);
        let code = parameter(uri, "reason").map(|text| {
            Code::parse(&text)
                .ok_or_else(|| wrong("`reason` is a code of docs/errors, such as schema.invalid."))
        });
        let since = parameter(uri, "since").map(|text| {
            Timestamp::parse(&text)
                .ok_or_else(|| wrong("`since` is an instant, such as 2026-01-31T12:00:00Z."))
        });
        let after = parameter(uri, "after").map(|text| {
            Place::parse(&text).ok_or_else(|| wrong("`after` is the `next` of an earlier answer."))
        });
        let limit = parameter(uri, "limit").map(|text| {
            let limit = text.parse::<usize>().ok().filter(|limit| (1..=MAX_RECORDS).contains(limit));
            limit.ok_or_else(|| wrong("`limit` is a number from 1 to 1000."))
        });
        Ok(Self {
            code: code.transpose()?,
            source: parameter(uri, "source"),
            since: since.transpose()?,
            after: after.transpose()?.unwrap_or(Place::FIRST),
            limit: limit.transpose()?.unwrap_or(DEFAULT_RECORDS),
        })
    }

    fn takes(&self, found: &Found) -> bool {
        let kept = &found.kept;
        self.code.is_none_or(|code| kept.reason.code == code)
            && self.source.as_ref().is_none_or(|source| kept.source.as_str() == source)
            && self.since.is_none_or(|since| kept.received_at >= since)
    }
}

/// The records, partition by partition.
pub(super) async fn records(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, RequestError> {
    gateway.keys().authenticate_secret(&headers, &uri)?;
    let filter = Filter::of(&uri)?;
    let mut walk = Walk::from(&gateway.log, filter.after).await.map_err(|error| unreadable(&error))?;
    let mut records = Vec::new();
    while records.len() < filter.limit && walk.scanned < SCAN_RECORDS {
        let Some(found) = walk.next().await.map_err(|error| unreadable(&error))? else { break };
        if filter.takes(&found) {
            records.push(found);
        }
    }
    Ok(errors::json(StatusCode::OK, body(&Page { records, next: walk.position() })))
}

/// The reasons, the most frequent first.
pub(super) async fn reasons(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, RequestError> {
    gateway.keys().authenticate_secret(&headers, &uri)?;
    let filter = Filter::of(&uri)?;
    let mut walk = Walk::from(&gateway.log, filter.after).await.map_err(|error| unreadable(&error))?;
    let mut groups: BTreeMap<Common, Group> = BTreeMap::new();
    let mut others = 0;
    while walk.scanned < SCAN_RECORDS {
        let Some(found) = walk.next().await.map_err(|error| unreadable(&error))? else { break };
        if !filter.takes(&found) {
            continue;
        }
        let common = Common::of(&found);
        let known = groups.len() < MAX_GROUPS || groups.contains_key(&common);
        if !known {
            others += 1;
            continue;
        }
        let received_at = found.kept.received_at;
        let group = groups.entry(common.clone()).or_insert_with(|| Group {
            common,
            count: 0,
            first: received_at,
            last: received_at,
            example: found.at,
        });
        group.count += 1;
        group.first = group.first.min(received_at);
        if received_at >= group.last {
            group.last = received_at;
            group.example = found.at;
        }
    }
    let mut reasons: Vec<Group> = groups.into_values().collect();
    reasons.sort_by_key(|group| std::cmp::Reverse(group.count));
    Ok(errors::json(StatusCode::OK, body(&Summary { reasons, others, next: walk.position() })))
}

/// One record.
pub(super) async fn one(
    State(gateway): State<Arc<Gateway>>,
    Path(at): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, RequestError> {
    gateway.keys().authenticate_secret(&headers, &uri)?;
    let at = Place::parse(&at).ok_or_else(nowhere)?;
    let found = read_one(&gateway.log, at).await.map_err(|error| unreadable(&error))?;
    Ok(errors::json(StatusCode::OK, body(&found.ok_or_else(nowhere)?)))
}

impl Common {
    fn of(found: &Found) -> Self {
        let Reason { code, pointer, keyword, schema, .. } = &found.kept.reason;
        // An array's index is no property of the mistake.
        let pointer = pointer.as_ref().map(|pointer| {
            let tokens = pointer.split('/').map(|token| match token.parse::<u32>() {
                Ok(_) => "*",
                Err(_) => token,
            });
            tokens.collect::<Vec<_>>().join("/")
        });
        Self {
            code: code.as_str(),
            pointer,
            keyword: keyword.clone(),
            schema: schema.clone(),
            source: found.kept.source.clone(),
        }
    }
}

fn nowhere() -> RequestError {
    RequestError::new(
        Code::NotFound,
        "No record of quarantine stands there (`partition:offset`); it may be gone by retention.",
    )
}

/// The log does not answer now.
pub(super) fn unreadable(error: &ReadError) -> RequestError {
    tracing::warn!(%error, "quarantine cannot be read");
    RequestError::new(Code::LogUnavailable, "The log cannot be read now; ask again later.")
}
