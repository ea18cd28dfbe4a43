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
            world.b.consume();
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

/// Two engines that get the processor now and then, and a socket buffer of 90 packets in front of each, as on one machine.
struct Machine {
    a: Connection,
    b: Connection,
    to_a: Vec<Vec<u8>>,
    to_b: Vec<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    sent: u64,
    dropped: u64,
}

const BUFFER: usize = 90;

impl Machine {
    fn run_a(&mut self, now: u64, message: &[u8]) {
        for packet in self.to_a.drain(..) {
            self.a.receive(now, &packet);
            self.spare.push(packet);
        }
        if self.a.deadline().is_some_and(|at| at <= now) {
            self.a.timeout(now);
        }
        loop {
            while self.a.can_write() {
                self.a.write(now, message).unwrap();
            }
            let mut packet = self.spare.pop().unwrap_or_default();
            packet.clear();
            if !self.a.poll_transmit(now, &mut packet) {
                return;
            }
            self.sent += 1;
            if self.to_b.len() < BUFFER {
                self.to_b.push(packet);
            } else {
                self.dropped += 1;
                self.spare.push(packet);
            }
        }
    }

    fn run_b(&mut self, now: u64) -> u64 {
        let mut got = 0;
        for packet in self.to_b.drain(..) {
            self.b.receive(now, &packet);
            self.spare.push(packet);
            while self.b.message().is_some() {
                self.b.consume();
                got += 1;
            }
        }
        let mut packet = vec![];
        while self.b.poll_transmit(now, &mut packet) {
            self.to_a.push(std::mem::take(&mut packet));
        }
        got
    }
}

/// Messages a second, and the share of packets lost, when the sides run that often; each time up to twice as late.
fn on_one_machine(every_a: u64, every_b: u64, time: u64) -> (u64, f64) {
    let (a, b) = (Connection::new(config(true, OWN), 1, 0), Connection::new(config(true, OWN), 2, 0));
    let mut machine = Machine { a, b, to_a: vec![], to_b: vec![], spare: vec![], sent: 0, dropped: 0 };
    let mut random = common::Random(9);
    let (mut now_a, mut now_b, mut got) = (0, every_b, 0);
    let message = [0; 1400];
    while now_a.min(now_b) < time {
        if now_a <= now_b {
            machine.run_a(now_a, &message);
            now_a += every_a / 2 + random.below(every_a);
        } else {
            got += machine.run_b(now_b);
            now_b += every_b / 2 + random.below(every_b);
        }
    }
    (got * SECOND / time, machine.dropped as f64 / machine.sent as f64)
}

#[test]
fn engines_on_one_machine_neither_starve_nor_overrun_each_other() {
    for (every_a, every_b) in [(20, 20), (50, 50), (100, 200), (200, 100), (500, 500), (50, 1000), (1000, 50)] {
        let (rate, lost) = on_one_machine(every_a * US, every_b * US, SECOND);
        // A buffer full each time the slower one runs, if the buffer is full just then.
        let possible = BUFFER as u64 * 1_000_000 / every_a.max(every_b);
        println!("{every_a} and {every_b} us: {rate} of {possible} messages a second, {:.2} % lost", lost * 100.0);
        assert!(rate * 2 >= possible, "{every_a} and {every_b} us: {rate} of {possible} messages a second");
        assert!(lost < 0.03, "{every_a} and {every_b} us: {lost} lost");
    }
}
