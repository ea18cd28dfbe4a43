//! A unicast or broadcast layer of any shape, and a node that is no member and says what it likes. No input may make a node panic,
//! go round in circles, or lose count of a packet.
//!
//! `cargo install cargo-fuzz`, then `cargo +nightly fuzz run layer -- -max_total_time=60`
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../rust/sim/tests/common/topology.rs"]
mod topology;

fuzz_target!(|input: &[u8]| topology::run(input));
