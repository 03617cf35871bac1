//! The schemas built into the program.
//!
//! **Invariant:** the table equals the folder `schemas/events` (test in `registry`).

macro_rules! documents {
    ($($event_type:literal / $version:literal),* $(,)?) => {
        &[$(($event_type, $version, include_str!(concat!("../events/", $event_type, "/", $version, ".json")))),*]
    };
}

/// Event type, version and text of each document.
pub(crate) const DOCUMENTS: &[(&str, u32, &str)] = documents![
    "add_to_cart" / 1,
    "alias" / 1,
    "category_view" / 1,
    "checkout_started" / 1,
    "click" / 1,
    "form_submit" / 1,
    "identify" / 1,
    "page_view" / 1,
    "product_view" / 1,
    "purchase" / 1,
    "remove_from_cart" / 1,
    "search" / 1,
    "signup" / 1,
];
