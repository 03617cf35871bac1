//! Record headers: the `CloudEvents` Kafka binding, binary mode (`CloudEvents` 1.0.2, Kafka protocol binding §3.2).

/// `ce_specversion`, always [`SPEC_VERSION`].
pub const CE_SPEC_VERSION: &str = "ce_specversion";
/// `ce_id`: the event id, canonical.
pub const CE_ID: &str = "ce_id";
/// `ce_type`: the event type.
pub const CE_TYPE: &str = "ce_type";
/// `ce_source`: the source's configured name.
pub const CE_SOURCE: &str = "ce_source";
/// `ce_time`: `receipt.occurred_at`, RFC 3339.
pub const CE_TIME: &str = "ce_time";
/// `content-type`, always [`CONTENT_TYPE_JSON`].
pub const CONTENT_TYPE: &str = "content-type";
/// The version of `CloudEvents` that the headers follow.
pub const SPEC_VERSION: &str = "1.0";
/// The content type of every record of ours.
pub const CONTENT_TYPE_JSON: &str = "application/json";
/// Header of outputs (decisions, profile changes): idempotency key, the id derived from the cause.
pub const IDEMPOTENCY_KEY: &str = "rivulet_id";
