//! The border to the TypeScript shell: one function, texts in and out.
//!
//! **Invariant:** one engine a module instance; a step never calls back into the host.

use alloc::string::String;

use spin::Mutex;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::engine::Engine;

// A page has one thread, so that the lock is never waited for; it is how a static holds state without `unsafe`.
static ENGINE: Mutex<Option<Engine>> = Mutex::new(None);

/// One step of the engine: the input and the commands as [`crate::packed`] text, `now` in milliseconds since 1970, random words.
#[wasm_bindgen]
pub fn step(input: &str, now: f64, first: u32, second: u32, third: u32, fourth: u32) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a clock's time is a small whole number"
    )]
    let now = now as u64;
    match ENGINE.try_lock() {
        Some(mut engine) => {
            crate::packed::step(engine.get_or_insert_default(), input, now, [first, second, third, fourth])
        }
        None => String::new(),
    }
}
