//! The browser SDK's engine: what a page tells goes in, what the host has to do comes out.
//!
//! It has no I/O, no clock, no threads and no randomness: [`Engine::step`] takes an [`Input`], the time and a random word, and
//! returns [`Command`]s. Ids are minted and frames are taken apart by the host, which has what it takes ([`Mint`], `schemas::wire`, or a
//! browser's own `JSON.parse`). The same engine runs behind the TypeScript shell as WebAssembly, as JavaScript made from it where
//! WebAssembly is forbidden, and natively. [`packed`] is the text form of inputs and commands that crosses the border,
//! the same for all of them.
//!
//! **Invariant:** an event leaves the queue when a verdict for its own id was seen, or when it is discarded, counted and told.
#![no_std]
#![allow(
    clippy::single_char_add_str,
    reason = "one call for every text is smaller than a push that is inlined"
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "tests fail by panicking"
    )
)]

extern crate alloc;
#[cfg(any(not(target_family = "wasm"), not(feature = "browser"), feature = "gloo"))]
extern crate std;

mod backoff;
mod commands;
mod engine;
mod event;
pub mod host;
mod id;
mod identity;
mod input;
mod losses;
pub mod packed;
mod queue;
mod socket;

#[cfg(feature = "browser")]
pub mod facade;
#[cfg(all(target_family = "wasm", feature = "gloo"))]
pub mod gloo;

pub use backoff::{BREAKER_FAILURES, LONGEST_WAIT_MS};
pub use commands::Commands;
pub use engine::Engine;
pub use id::Mint;
pub use input::{
    Answer, Channel, Command, Consent, Delivery, Greeting, Input, Millis, Priority, Tracked, Verdicts,
};
pub use queue::{EXPIRE_MS, QUEUE_BYTES};

/// Half the size of the default allocator, and the engine is alone in its memory.
#[cfg(all(target_family = "wasm", not(target_feature = "atomics")))]
#[global_allocator]
static ALLOCATOR: talc::wasm::WasmDynamicTalc = talc::wasm::new_wasm_dynamic_allocator();

/// The browser's module says nothing when it panics: a trap, which the shell reports. The standard library's messages would
/// make a third of it. (`panic = "abort"` is the profile's.)
#[cfg(all(target_family = "wasm", feature = "browser", not(feature = "gloo")))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
