//! The part of the contract that the browser engine shares: no_std, no dependencies, no JSON tree.
