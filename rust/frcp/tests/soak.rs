//! An hour of faults in virtual time, for a number of seeds: `FRCP_SOAK=100 cargo test -p ouroboros-frcp --test soak`.
#![allow(clippy::unwrap_used)]

mod common;

use common::link::Path;
use common::{MS, OWN, Random, SECOND, World, config, message, number};
use ouroboros_frcp::{Config, Connection, Peer};

const HOUR: u64 = 3600 * SECOND;
/// So many seeds without being asked for more.
const SEEDS: u64 = 4;

fn seeds() -> u64 {
    std::env::var("FRCP_SOAK").map_or(SEEDS, |seeds| seeds.parse().unwrap())
}

/// Weather: bad for up to 100 s, then fair for at least 30 s, so that what was lost can be repaired within R.
struct Weather {
    random: Random,
    bad: bool,
    until: u64,
}

impl Weather {
    fn turn(&mut self, now: u64) -> Option<[Path; 2]> {
        if now < self.until {
            return None;
        }
        self.bad = !self.bad;
        let random = &mut self.random;
        let fair = Path {
            rate: [0, 10_000_000, 100_000_000][random.below(3) as usize],
            queue: 20 + random.below(200) as usize,
            loss: random.below(50) as f64 / 1000.0,
            duplicate: random.below(20) as f64 / 1000.0,
            reorder: random.below(50) as f64 / 1000.0,
            late: random.below(20 * MS),
            jitter: random.below(5 * MS),
            ..Path::clean(random.below(50 * MS))
        };
        if !self.bad {
            self.until = now + 30 * SECOND + random.below(60 * SECOND);
            return Some([fair; 2]);
        }
        let (mut there, mut back) = (fair, fair);
        let length = match random.below(4) {
            0 => {
                there.cut = true;
                back.cut = true;
                100
            }
            1 => {
                (if random.below(2) == 0 { &mut there } else { &mut back }).cut = true;
                100
            }
            2 => {
                there.loss = 0.3 + random.below(60) as f64 / 100.0;
                back.loss = there.loss;
                30
            }
            _ => {
                there.reorder = 0.5;
                there.duplicate = 0.3;
                there.late = 200 * MS;
                back = there;
                60
            }
        };
        self.until = now + random.below(length * SECOND);
        Some([there, back])
    }
}

/// One side: a burst of messages now and then, and a reader that pauses now and then.
struct Side {
    random: Random,
    wrote: u64,
    got: u64,
    write_at: u64,
    read_at: u64,
}

impl Side {
    fn new(seed: u64) -> Self {
        Side { random: Random(seed), wrote: 0, got: 0, write_at: 0, read_at: 0 }
    }

    fn write(&mut self, now: u64, end: &mut Connection) {
        if now < self.write_at {
            return;
        }
        let longest = end.limit().min(5_000) as u64;
        for _ in 0..self.random.below(30) {
            if !end.can_write() {
                break;
            }
            let length = 8 + Random(self.wrote).below(longest - 7) as usize;
            end.write(now, &message(self.wrote, length)).unwrap();
            self.wrote += 1;
        }
        self.write_at = now + self.random.below(1500 * MS);
    }

    /// Everything arrives, or what arrives is in order.
    fn read(&mut self, now: u64, end: &mut Connection, reliable: bool) {
        if now < self.read_at {
            return;
        }
        while let Some(read) = end.message() {
            let n = number(read);
            assert!(n == self.got || !reliable && n > self.got, "{n} instead of {}", self.got);
            assert_eq!(read, message(n, read.len()));
            self.got = n + 1;
            end.consume();
        }
        if self.random.below(200) == 0 {
            self.read_at = now + self.random.below(60 * SECOND);
        }
    }
}

fn hour(config: Config, seed: u64) -> u64 {
    let a = Connection::new(config, Random(seed).next(), SECOND);
    let b = Connection::new(config, Random(!seed).next(), SECOND);
    let mut world = World::new(a, b, Path::clean(10 * MS), seed);
    let mut weather = Weather { random: Random(seed ^ 0xABCD), bad: true, until: 0 };
    let mut sides = [Side::new(seed + 1), Side::new(seed + 2)];
    while world.now < HOUR {
        if let Some([there, back]) = weather.turn(world.now) {
            (world.there.path, world.back.path) = (there, back);
        }
        let [left, right] = &mut sides;
        left.write(world.now, &mut world.a);
        right.write(world.now, &mut world.b);
        let limit = weather.until.min(left.write_at).min(right.write_at);
        world.step(limit.min(world.now + SECOND));
        left.read(world.now, &mut world.a, config.reliable);
        right.read(world.now, &mut world.b, config.reliable);
        assert!(world.a.failure().is_none() && world.b.failure().is_none(), "seed {seed} at {}", world.now);
    }
    finish(&mut world, &mut sides, config.reliable);
    sides.iter().map(|side| side.got).sum()
}

/// Fair weather, and both close: all that was written arrives, and both are done.
fn finish(world: &mut World<Connection, Connection>, sides: &mut [Side; 2], reliable: bool) {
    (world.there.path, world.back.path) = (Path::clean(10 * MS), Path::clean(10 * MS));
    let [left, right] = sides;
    (left.read_at, right.read_at) = (0, 0);
    for _ in 0..600 {
        world.pass(SECOND / 10);
        left.read(world.now, &mut world.a, reliable);
        right.read(world.now, &mut world.b, reliable);
        (left.read_at, right.read_at) = (0, 0);
    }
    if reliable {
        assert_eq!((left.got, right.got), (right.wrote, left.wrote));
    }
    world.a.close(world.now);
    world.b.close(world.now);
    world.pass(SECOND);
    assert!(world.a.is_done() && world.b.is_done());
    assert!(world.a.failure().is_none() && world.b.failure().is_none());
    assert_eq!((world.a.deadline(), world.b.deadline()), (None, None));
}

#[test]
fn an_hour_of_faults_loses_nothing() {
    for seed in 0..seeds() {
        let window = [64, 1000, 16384][seed as usize % 3];
        let peer = if seed % 4 == 3 { Peer::Own { sack: false, fragments: true, window } } else { OWN };
        let messages = hour(config(true, peer), seed);
        let least = if peer == OWN { 10_000 } else { 1_000 };
        assert!(messages > least, "seed {seed}: only {messages} messages");
    }
}

#[test]
fn an_hour_of_faults_keeps_the_order_of_what_arrives() {
    for seed in 0..seeds() {
        let messages = hour(config(false, OWN), seed);
        assert!(messages > 5_000, "seed {seed}: only {messages} messages");
    }
}
