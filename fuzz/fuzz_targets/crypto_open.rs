//! Packets from the network, of any bytes or altered on the way. None may open that was not sealed, and none may cause a panic.
//!
//! `cargo install cargo-fuzz`, then `cargo +nightly fuzz run crypto_open -- -max_total_time=60`
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../rust/crypto/tests/common/attack.rs"]
mod attack;

fuzz_target!(|input: &[u8]| attack::run(input));
