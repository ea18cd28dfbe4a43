//! How much of a link a flow uses, in virtual time: the bars are lower bounds.
#![allow(clippy::unwrap_used)]

mod common;

use common::link::Path;
use common::{MS, OWN, SECOND, US, World, config};
use ouroboros_frcp::{Connection, Stats};

struct Outcome {
    /// Share of the link's rate that arrived as messages, in percent.
    used: f64,
    stats: Stats,
    dropped: f64,
}

/// A flow that always has something to send, for a time.
fn flood(path: Path, length: usize, time: u64) -> Outcome {
    let a = Connection::new(config(true, OWN), 1, SECOND);
    let b = Connection::new(config(true, OWN), 2, SECOND);
    let mut world = World::new(a, b, path, 7);
    let message = vec![0; length];
    let (mut arrived, end) = (0u64, world.now + time);
    loop {
        while world.a.can_write() {
            world.a.write(world.now, &message).unwrap();
        }
        world.flush();
        if world.a.can_write() {
            continue;
        }
        let more = world.step(end);
        while world.b.message().is_some() {
            arrived += world.b.message().map_or(0, <[u8]>::len) as u64;
            world.b.consume(world.now);
        }
        if !more {
            break;
        }
    }
    let used = arrived as f64 * 8.0 * SECOND as f64 / time as f64 / path.rate as f64 * 100.0;
    Outcome { used, stats: world.a.stats(), dropped: world.there.dropped as f64 / world.there.sent as f64 * 100.0 }
}

fn check(name: &str, path: Path, length: usize, time: u64, bar: f64) {
    let outcome = flood(path, length, time);
    println!("{name}: {:.1} % used, {:.2} % dropped {:?}", outcome.used, outcome.dropped, outcome.stats);
    assert!(outcome.used >= bar, "{name}: {:.1} % of the link used, at least {bar} % wanted", outcome.used);
}

fn link(mbit: u64, rtt: u64, queue: usize, loss: f64) -> Path {
    Path { rate: mbit * 1_000_000, queue, loss, ..Path::clean(rtt / 2) }
}

#[test]
fn a_100_mbit_link_of_10_ms_is_used_without_loss() {
    check("100M 10ms 0%", link(100, 10 * MS, 200, 0.0), 1400, 5 * SECOND, 80.0);
}

#[test]
fn a_100_mbit_link_of_10_ms_is_used_at_1_percent_loss() {
    check("100M 10ms 1%", link(100, 10 * MS, 200, 0.01), 1400, 5 * SECOND, 60.0);
}

#[test]
fn a_100_mbit_link_of_10_ms_is_used_at_5_percent_loss() {
    check("100M 10ms 5%", link(100, 10 * MS, 200, 0.05), 1400, 5 * SECOND, 50.0);
}

#[test]
fn a_gigabit_link_of_1_ms_is_used_with_and_without_loss() {
    check("1G 1ms 0%", link(1000, MS, 300, 0.0), 1400, SECOND, 80.0);
    check("1G 1ms 1%", link(1000, MS, 300, 0.01), 1400, SECOND, 60.0);
    check("1G 1ms 5%", link(1000, MS, 300, 0.05), 1400, SECOND, 50.0);
}

#[test]
fn a_small_queue_of_a_fast_link_is_not_overrun_all_the_time() {
    for rtt in [50 * US, 100 * US, 500 * US, MS] {
        let path = link(2000, rtt, 90, 0.0);
        check(&format!("2G {rtt} 90"), path, 1400, SECOND, 50.0);
        let outcome = flood(path, 1400, SECOND);
        assert!(outcome.dropped < 2.0, "{} % dropped", outcome.dropped);
    }
}

#[test]
fn slow_and_long_links_are_used() {
    check("1M 50ms", link(1, 50 * MS, 100, 0.0), 1400, 20 * SECOND, 70.0);
    check("10M 200ms", link(10, 200 * MS, 300, 0.0), 1400, 20 * SECOND, 70.0);
    check("10M 50ms 5%", link(10, 50 * MS, 100, 0.05), 1400, 20 * SECOND, 50.0);
    check("500M 50ms 1%", link(500, 50 * MS, 2000, 0.01), 1400, 5 * SECOND, 50.0);
}

#[test]
fn long_messages_in_fragments_use_a_link() {
    check("100M 10ms 1% 100k", link(100, 10 * MS, 200, 0.01), 100_000, 5 * SECOND, 60.0);
}

#[test]
fn short_messages_use_what_headers_leave() {
    check("100M 10ms 200 B", link(100, 10 * MS, 1000, 0.01), 200, 3 * SECOND, 40.0);
}
