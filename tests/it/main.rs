//! Promises to users.
