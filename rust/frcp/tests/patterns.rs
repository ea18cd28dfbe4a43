//! Hours of each pattern of traffic with each fault of the path, in virtual time: the state of both sides stays within its
//! limits, traffic goes on after each fault, and everything arrives.
#![allow(clippy::unwrap_used)]

mod common;

use common::link::Path;
use common::{MS, OWN, SECOND, World, config, message, number};
use ouroboros_frcp::{Config, Connection, Peer, Stats, limits};

const HOUR: u64 = 3600 * SECOND;
/// What the longest packet of `config` costs, bytes: a payload, the header, and an allowance for the layers below.
const PACKET: u64 = 1412 + 60;
/// The path is slow, so that hours of it are few packets: 200 kbit/s, a round trip of 100 ms, a queue of 1.2 s.
const FAIR: Path = Path { rate: 200_000, queue: 20, ..Path::clean(50 * MS) };
const CUT: Path = Path { cut: true, ..FAIR };
/// No reading of such a path makes more of it than so many bytes under way: several times what it holds with its queue.
const MOST_UNDER_WAY: u64 = 400_000;
/// Nor a faster one than this, bytes a second: a hundred times what it carries.
const MOST_RATE: u64 = 2_500_000;

/// The path while it is bad, there and back, and for how long it is bad and then fair.
struct Fault {
    name: &'static str,
    paths: [Path; 2],
    bad: u64,
    fair: u64,
}

const fn always(name: &'static str, path: Path) -> Fault {
    Fault { name, paths: [path, path], bad: 30 * SECOND, fair: 0 }
}

const FAULTS: [Fault; 12] = [
    always("none", FAIR),
    always("loss 1 %", Path { loss: 0.01, ..FAIR }),
    always("loss 5 %", Path { loss: 0.05, ..FAIR }),
    Fault { name: "short outage", paths: [CUT, CUT], bad: 300 * MS, fair: 20 * SECOND },
    Fault { name: "long outage", paths: [CUT, CUT], bad: 70 * SECOND, fair: 120 * SECOND },
    Fault { name: "repeated outage", paths: [CUT, CUT], bad: SECOND, fair: 10 * SECOND },
    Fault { name: "outage of the way back", paths: [FAIR, CUT], bad: 5 * SECOND, fair: 30 * SECOND },
    always("reordering", Path { reorder: 0.1, late: 150 * MS, ..FAIR }),
    always("duplicates", Path { duplicate: 0.2, late: 20 * MS, ..FAIR }),
    always("jitter", Path { jitter: 60 * MS, ..FAIR }),
    Fault { name: "delay spike", paths: [Path { delay: 2 * SECOND, ..FAIR }; 2], bad: SECOND, fair: 20 * SECOND },
    Fault { name: "flood of loss", paths: [Path { loss: 0.6, ..FAIR }; 2], bad: 5 * SECOND, fair: 20 * SECOND },
];

/// What the programs at both ends do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pattern {
    /// One always has something to send.
    Bulk,
    /// One sends a message, and the next once that was answered.
    Ask,
    /// Many messages at once, then nothing for long, now and then for longer than the peer remembers.
    Bursts,
    /// Both always have something to send.
    BothWays,
}

const BURST: u64 = 60;

/// One end: what it wrote and what it read, all of it in order.
#[derive(Default)]
struct Side {
    wrote: u64,
    got: u64,
    burst_at: u64,
    most_in_flight: u64,
}

impl Side {
    fn write(&mut self, now: u64, end: &mut Connection, most: u64) {
        for _ in 0..most {
            if !end.can_write() {
                return;
            }
            let length = 900 + self.wrote as usize * 7 % 500;
            end.write(now, &message(self.wrote, length)).unwrap();
            self.wrote += 1;
        }
    }

    fn burst(&mut self, now: u64, end: &mut Connection) {
        if now >= self.burst_at {
            self.write(now, end, BURST);
            let pause = if (self.wrote / BURST).is_multiple_of(20) { 300 } else { 15 };
            self.burst_at = now + pause * SECOND;
        }
    }

    fn read(&mut self, end: &mut Connection, reliable: bool) {
        while let Some(read) = end.message() {
            let n = number(read);
            assert!(n == self.got || !reliable && n > self.got, "{n} instead of {}", self.got);
            self.got = n + 1;
            end.consume();
        }
    }

    fn check(&mut self, stats: &Stats, rto: u64) {
        self.most_in_flight = self.most_in_flight.max(stats.in_flight);
        assert!(stats.congestion_window <= MOST_UNDER_WAY && stats.in_flight <= MOST_UNDER_WAY, "{stats:?}");
        // What is believed of loss goes no further than what was tried.
        let tried = self.most_in_flight + self.most_in_flight / 16 + PACKET;
        assert!(stats.loss_bound <= tried.max(16 * PACKET), "{} was tried: {stats:?}", self.most_in_flight);
        // Before the first round trip was measured the first window goes out as it is.
        let known = stats.min_rtt > 0;
        assert!(!known || stats.pacing_rate <= MOST_RATE && stats.bandwidth <= MOST_RATE, "{stats:?}");
        assert!(stats.rtt <= limits::MOST_RTT && stats.min_rtt <= limits::MOST_RTT && stats.rto <= rto, "{stats:?}");
    }
}

struct Trial {
    world: World<Connection, Connection>,
    sides: [Side; 2],
    pattern: Pattern,
    config: Config,
    rto: u64,
}

impl Trial {
    fn new(config: Config, pattern: Pattern) -> Self {
        let [a, b] = [1, 2].map(|seed| Connection::new(config, seed, SECOND));
        let rto = if config.peer == Peer::Prototype { limits::MOST_RTO_PROTOTYPE } else { limits::MOST_RTO };
        Trial { world: World::new(a, b, FAIR, 5), sides: [Side::default(), Side::default()], pattern, config, rto }
    }

    fn write(&mut self) {
        let (now, [left, right]) = (self.world.now, &mut self.sides);
        match self.pattern {
            Pattern::Bulk => left.write(now, &mut self.world.a, 50),
            Pattern::BothWays => {
                left.write(now, &mut self.world.a, 50);
                right.write(now, &mut self.world.b, 50);
            }
            Pattern::Bursts => left.burst(now, &mut self.world.a),
            Pattern::Ask => {
                // In mode U a question or its answer may be lost: who asks tries again after a while.
                if left.wrote == left.got || !self.config.reliable && now >= left.burst_at {
                    left.write(now, &mut self.world.a, 1);
                    left.burst_at = now + SECOND;
                }
                let answers = right.got.saturating_sub(right.wrote);
                right.wrote = right.got - answers;
                right.write(now, &mut self.world.b, answers);
            }
        }
    }

    fn step(&mut self, limit: u64) {
        self.write();
        // Now most is under way.
        self.world.flush();
        for (side, end) in self.sides.iter_mut().zip([&self.world.a, &self.world.b]) {
            side.check(&end.stats(), self.rto);
        }
        self.world.step(limit.min(self.world.now + SECOND));
        let reliable = self.config.reliable;
        let [left, right] = &mut self.sides;
        left.read(&mut self.world.a, reliable);
        right.read(&mut self.world.b, reliable);
    }

    fn run(&mut self, time: u64, paths: [Path; 2]) {
        [self.world.there.path, self.world.back.path] = paths;
        let end = self.world.now + time;
        while self.world.now < end {
            self.step(end);
        }
        assert!(self.world.a.failure().is_none() && self.world.b.failure().is_none());
    }

    /// Fair weather, and nobody writes any more: what was written arrives.
    fn finish(&mut self) {
        let wrote = [self.sides[0].wrote, self.sides[1].wrote];
        self.pattern = Pattern::Bursts;
        self.sides[0].burst_at = u64::MAX;
        self.run(200 * SECOND, [FAIR; 2]);
        if self.config.reliable {
            assert_eq!([self.sides[1].got, self.sides[0].got], wrote);
        }
    }
}

/// Messages that arrived.
fn hours(config: Config, pattern: Pattern, fault: &Fault, time: u64) -> u64 {
    let mut trial = Trial::new(config, pattern);
    while trial.world.now < time {
        trial.run(fault.bad, fault.paths);
        let before = (trial.sides[1].got, trial.sides[0].wrote);
        trial.run(fault.fair, [FAIR; 2]);
        let after = (trial.sides[1].got, trial.sides[0].wrote);
        // A burst that falls into the fault is lost where nothing is repaired.
        let waits = pattern != Pattern::Bursts || config.reliable && before.1 > before.0;
        let wanted = fault.fair > 0 && waits;
        assert!(!wanted || after.0 > before.0, "nothing came after the fault was over, at {}", trial.world.now);
    }
    trial.finish();
    trial.sides[1].got
}

fn all(config: Config, time: u64) {
    for pattern in [Pattern::Bulk, Pattern::Ask, Pattern::Bursts, Pattern::BothWays] {
        for fault in &FAULTS {
            let name = format!("{pattern:?}, {}", fault.name);
            println!("{name}");
            let least = match pattern {
                Pattern::Bulk | Pattern::BothWays => 6_000,
                Pattern::Ask => 1_500,
                Pattern::Bursts => 3_000,
            };
            let messages = hours(config, pattern, fault, time);
            assert!(messages * HOUR / time > least, "{name}: only {messages} messages");
        }
    }
}

#[test]
fn a_reliable_flow_keeps_its_limits_for_hours_of_every_fault() {
    all(config(true, OWN), HOUR);
}

#[test]
fn a_reliable_flow_without_ranges_does_so_too() {
    all(config(true, Peer::Own { sack: false, fragments: true, window: 1000 }), HOUR / 4);
}

#[test]
fn a_reliable_flow_with_the_prototype_does_so_too() {
    all(config(true, Peer::Prototype), HOUR / 4);
}

#[test]
fn an_ordered_flow_does_so_too() {
    all(config(false, OWN), HOUR / 4);
}
