//! Two sides of a flow, and somebody who drops, repeats, changes and invents packets between them; four bytes a step. No input
//! may make a side panic, send without end, or hold more than its bounds.
//!
//! `cargo install cargo-fuzz`, then `cargo +nightly fuzz run frcp -- -max_total_time=60`
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../rust/frcp/tests/common/attack.rs"]
mod attack;

fuzz_target!(|input: &[u8]| attack::run(input));
