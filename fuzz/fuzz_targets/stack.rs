//! A node with layers over layers of any shape, and what strangers, neighbours, control and programs do to it. No input may
//! make it panic, go round in circles, or lose count of a packet.
//!
//! `cargo install cargo-fuzz`, then `cargo +nightly fuzz run stack -- -max_total_time=60`
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../rust/sim/tests/common/attack.rs"]
mod attack;

fuzz_target!(|input: &[u8]| attack::run(input));
