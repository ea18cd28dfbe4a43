//! Steps of an honest side and of a peer that scribbles, eleven bytes each. No input may make the honest side panic or hang.
//!
//! `cargo install cargo-fuzz`, then `cargo +nightly fuzz run hostile_peer -- -max_total_time=60`
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../rust/shm/tests/common/mod.rs"]
mod common;

use common::scribbler::Attack;

fuzz_target!(|input: &[u8]| {
    let mut attack = Attack::new();
    for step in input.chunks_exact(11) {
        let [kind, low, high, value @ ..] = step else { return };
        let Ok(value) = value.try_into() else { return };
        attack.step(*kind, u16::from_le_bytes([*low, *high]), u64::from_le_bytes(value));
    }
    attack.finish();
});
