//! What the request tells beside the event: the browser, and the campaign that brought the visitor.
//!
//! **Invariant:** pure functions of the event and its receipt, so that a replay enriches alike.

pub mod campaign;
pub mod user_agent;

pub use campaign::Campaign;
pub use user_agent::UserAgent;

/// What enrichment found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Enrichment {
    /// The parsed `User-Agent`.
    pub user_agent: Option<UserAgent>,
    /// The campaign named by the event.
    pub campaign: Option<Campaign>,
}
