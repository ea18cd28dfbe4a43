//! What a packet costs: `cargo run --release -p ouroboros-crypto --example speed`.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use ouroboros_crypto::{Replay, Role, Session, Settings, Suite};

const TIME: Duration = Duration::from_millis(300);

fn main() {
    println!(
        "{:20} {:>6} {:>9} {:>7} {:>9} {:>7} {:>11}",
        "suite", "bytes", "seal ns", "GB/s", "open ns", "GB/s", "forged ns"
    );
    for suite in Suite::ALL {
        for length in [64, 1400, 65_536] {
            let seal = seal_ns(suite, length);
            let open = open_ns(suite, length, false);
            let forged = if suite.authenticates() { open_ns(suite, length, true) } else { f64::NAN };
            let rate = |ns: f64| length as f64 / ns;
            println!(
                "{:20} {length:6} {seal:9.0} {:7.2} {open:9.0} {:7.2} {forged:11.0}",
                suite.name(),
                rate(seal),
                rate(open)
            );
        }
    }
}

fn session(suite: Suite, role: Role, replay: Replay) -> Session {
    Session::new(Settings { replay, ..Settings::new(suite, role) }, &[7; 32]).unwrap()
}

fn seal_ns(suite: Suite, length: usize) -> f64 {
    let mut session = session(suite, Role::Allocator, Replay::Reject);
    let plain = vec![1; length];
    let mut packet = vec![0; length + suite.overhead()];
    time(|| session.seal_into(black_box(&plain), &mut packet).unwrap())
}

fn open_ns(suite: Suite, length: usize, forged: bool) -> f64 {
    let mut from = session(suite, Role::Allocator, Replay::Accept);
    let mut to = session(suite, Role::Acceptor, Replay::Accept);
    let mut packet = Vec::new();
    from.seal(&vec![1; length], &mut packet).unwrap();
    if forged {
        let last = packet.len() - 1;
        packet[last] ^= 1;
    }
    let mut plain = vec![0; length];
    time(|| assert_eq!(to.open_into(black_box(&packet), &mut plain).is_err(), forged))
}

/// Nanoseconds per call, the best of three.
fn time(mut call: impl FnMut()) -> f64 {
    let mut once = || {
        let (start, mut calls) = (Instant::now(), 0u32);
        while start.elapsed() < TIME / 3 {
            for _ in 0..100 {
                call();
            }
            calls += 100;
        }
        start.elapsed().as_nanos() as f64 / f64::from(calls)
    };
    once().min(once()).min(once())
}
