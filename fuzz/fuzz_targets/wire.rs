//! All views of packets: frames, headers of layers, words, management datagrams. No bytes may make one panic.
//!
//! `cargo install cargo-fuzz`, then `cargo +nightly fuzz run wire -- -max_total_time=60`
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../rust/wire/tests/common/attack.rs"]
mod attack;

fuzz_target!(|input: &[u8]| attack::run(input));
