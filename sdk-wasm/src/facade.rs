//! The border to the TypeScript shell: one function, texts in and out.
//!
//! **Invariant:** one engine a module instance; a step never calls back into the host.

use alloc::string::String;

use spin::Mutex;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::engine::Engine;

// A page has one thread, so that the lock is never waited for; it is how a static holds state without `unsafe`.
static ENGINE: Mutex<Option<Engine>> = Mutex::new(None);

/// One step of the engine: the input and the commands as [`crate::packed`] text, `now` in milliseconds since 1970, a random word.
#[wasm_bindgen]
pub fn step(input: &str, now: f64, random: u32) -> String {
    match ENGINE.try_lock() {
        Some(mut engine) => engine.get_or_insert_default().step_packed(input, now, random).into_string(),
        None => String::new(),
    }
}
