//! What a packet costs: one flow through a perfect link in memory, in nanoseconds for each message of 1400 bytes.
//!
//! `cargo run --release -p ouroboros-frcp --example packets`

use std::hint::black_box;
use std::time::{Duration, Instant};

use ouroboros_frcp::{Config, Connection, Peer, UNSENT};

const LENGTH: usize = 1400;
const BATCH: usize = 32;
const ROUNDS: u64 = 100_000;

/// Time spent in each kind of call.
#[derive(Default)]
struct Spent {
    write: Duration,
    transmit: Duration,
    receive: Duration,
    read: Duration,
    acknowledge: Duration,
}

fn timed<T>(spent: &mut Duration, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = work();
    *spent += begin.elapsed();
    result
}

fn main() {
    for (name, loss) in [("no loss", 0), ("1 % loss", 100), ("5 % loss", 20)] {
        run(name, loss);
    }
}

/// One of `loss` packets is lost; 0: none.
fn run(name: &str, loss: u64) {
    let peer = Peer::Own { sack: true, fragments: true, window: 16384 };
    let config =
        Config { reliable: true, peer, max_packet: LENGTH + 12, mpl: 5_000_000_000, unsent: UNSENT, thrifty: false };
    let (mut a, mut b) = (Connection::new(config, 1, 0), Connection::new(config, 2, 0));
    let message = [7; LENGTH];
    let mut packets = (0..4 * BATCH).map(|_| Vec::with_capacity(1500)).collect::<Vec<_>>();
    let mut back = Vec::with_capacity(1500);
    let (mut now, mut count, mut sent, mut read) = (0, 0, 0u64, Vec::with_capacity(1500));
    let mut spent = Spent::default();
    let begin = Instant::now();
    for _ in 0..ROUNDS {
        now += 50_000;
        timed(&mut spent.write, || {
            for _ in 0..BATCH {
                if a.can_write() && a.write(now, black_box(&message)).is_err() {
                    return;
                }
            }
        });
        if a.deadline().is_some_and(|at| at <= now) {
            a.timeout(now);
        }
        let mut used = 0;
        timed(&mut spent.transmit, || {
            while used < packets.len() {
                packets[used].clear();
                if !a.poll_transmit(now, &mut packets[used]) {
                    return;
                }
                used += 1;
            }
        });
        now += 20_000;
        timed(&mut spent.receive, || {
            for packet in &packets[..used] {
                sent += 1;
                if loss == 0 || sent % loss != 0 {
                    b.receive(now, packet);
                }
            }
        });
        timed(&mut spent.read, || {
            while let Some(message) = b.message() {
                read.clear();
                read.extend_from_slice(message);
                b.consume();
                count += 1;
            }
        });
        timed(&mut spent.acknowledge, || {
            back.clear();
            while b.poll_transmit(now, &mut back) {
                a.receive(now, &back);
                back.clear();
            }
        });
    }
    let each = |time: Duration| time.as_nanos() as u64 / count.max(1);
    println!(
        "{name}: {count} messages, {} ns each: write {}, poll_transmit {}, receive {}, read {}, acknowledgements {}",
        each(begin.elapsed()),
        each(spent.write),
        each(spent.transmit),
        each(spent.receive),
        each(spent.read),
        each(spent.acknowledge),
    );
    println!("  {:?}", a.stats());
}
