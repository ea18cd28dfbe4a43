//! Against a model of the C prototype: none of its hazards (H1 to H10 of the specification) meets our users or its own.
#![allow(clippy::unwrap_used)]

mod common;

use common::link::Path;
use common::prototype::{Prototype, RING};
use common::{MS, SECOND, World, config, message, number, read};
use ouroboros_frcp::{Connection, HEADER, Header, Peer, Refused, flag};

type Mixed = World<Connection, Prototype>;

fn world(reliable: bool, path: Path, first: u32, seed: u64) -> Mixed {
    let ours = Connection::new(config(reliable, Peer::Prototype), seed, SECOND);
    let mut world = World::new(ours, Prototype::new(reliable, first), path, seed);
    world.there.log = Some(vec![]);
    world
}

fn lossy(loss: f64) -> Path {
    Path { loss, ..Path::clean(500_000) }
}

fn packets(world: &Mixed) -> Vec<(u64, Header)> {
    world.there.log.iter().flatten().map(|(at, packet)| (*at, Header::decode(packet).unwrap().0)).collect()
}

/// Both send their messages as fast as the windows allow, until all are read.
fn exchange(world: &mut Mixed, ours: u64, theirs: u64, limit: u64) {
    let (mut wrote, mut written, mut got) = (0, 0, vec![]);
    let end = world.now + limit;
    loop {
        while wrote < ours && world.a.can_write() {
            world.a.write(world.now, &message(wrote, 100)).unwrap();
            wrote += 1;
        }
        while written < theirs && world.b.can_write() {
            world.b.write(world.now, &message(written, 100));
            written += 1;
        }
        let step = (world.now + 10 * MS).min(end);
        world.step(step);
        got.extend(std::iter::from_fn(|| read(&mut world.a)));
        if got.len() as u64 >= theirs && world.b.read.len() as u64 >= ours {
            break;
        }
        assert!(world.now < end, "{} of {theirs} and {} of {ours} after {limit} ns", got.len(), world.b.read.len());
        assert!(world.a.failure().is_none() && !world.b.down, "{} {wrote} {:?}", world.b.read.len(), world.a.stats());
    }
    for (n, read) in got.iter().enumerate() {
        assert_eq!(read, &message(n as u64, 100));
    }
    for (n, read) in world.b.read.iter().enumerate() {
        assert_eq!(read, &message(n as u64, 100));
    }
}

#[test]
fn both_directions_work_at_once_at_every_loss() {
    for (seed, loss) in [0.0, 0.01, 0.05, 0.1].into_iter().enumerate() {
        let mut world = world(true, lossy(loss), 0xFFFF_FF00, seed as u64);
        exchange(&mut world, 3000, 3000, 1000 * SECOND);
    }
}

/// H1: a bare packet before our first data makes it take our numbers for other ones, unless it says where we begin.
#[test]
fn a_slow_answer_is_accepted_whatever_our_first_number() {
    for seed in 0..50 {
        let mut world = world(true, Path::clean(MS), (seed as u32).wrapping_mul(0x0800_0000), seed);
        world.b.write(world.now, &message(0, 100));
        world.pass(50 * MS);
        assert!(read(&mut world.a).is_some());
        let early = packets(&world);
        assert!(!early.is_empty());
        assert!(early.iter().all(|(_, header)| header.has(flag::DRF) && !header.has(flag::DATA)));
        world.a.write(world.now, &message(0, 100)).unwrap();
        world.pass(5 * SECOND);
        assert_eq!(world.b.read, [message(0, 100)]);
        let first = packets(&world).iter().find(|(_, header)| header.has(flag::DATA)).unwrap().1;
        assert!(early.iter().all(|(_, header)| header.seqno == first.seqno));
    }
}

/// H1: one that is told a window or an acknowledgement before it has begun takes them for its own numbers.
#[test]
fn nothing_is_told_to_a_peer_that_has_not_begun() {
    let mut world = world(true, lossy(0.05), 77, 3);
    exchange(&mut world, 500, 0, 200 * SECOND);
    assert!(packets(&world).iter().all(|(_, header)| header.flags & (flag::ACK | flag::FC) == 0));
    // And it can still answer.
    world.b.write(world.now, &message(0, 100));
    world.pass(10 * SECOND);
    assert_eq!(world.a.message(), Some(&message(0, 100)[..]));
}

/// H2: it keeps a run alive by acknowledgements, in which another number would never be accepted.
#[test]
fn we_go_on_where_we_were_after_long_listening() {
    let mut world = world(true, Path::clean(MS), 5, 4);
    exchange(&mut world, 10, 0, 10 * SECOND);
    let last = packets(&world).iter().rfind(|(_, header)| header.has(flag::DATA)).unwrap().1.seqno;
    for n in 0..200 {
        world.b.write(world.now, &message(n, 100));
        world.pass(SECOND);
        assert!(read(&mut world.a).is_some());
    }
    world.a.write(world.now, b"still here").unwrap();
    world.pass(5 * SECOND);
    assert_eq!(world.b.read.last().map(Vec::as_slice), Some(&b"still here"[..]));
    let (_, next) = *packets(&world).iter().rfind(|(_, header)| header.has(flag::DATA)).unwrap();
    assert_eq!(next.seqno, last.wrapping_add(1));
    assert!(next.has(flag::DRF));
}

/// H2, the other way: it begins anew at another number although we have been sending all the time.
#[test]
fn a_new_run_of_the_peer_is_accepted_although_ours_goes_on() {
    let mut world = world(true, Path::clean(MS), 0x1234_5678, 5);
    world.b.write(world.now, b"first");
    world.pass(SECOND);
    assert!(read(&mut world.a).is_some());
    for n in 0..200 {
        world.a.write(world.now, &message(n, 100)).unwrap();
        world.pass(SECOND);
    }
    world.b.write(world.now, b"second");
    assert_eq!(world.b.runs.len(), 2);
    world.pass(5 * SECOND);
    assert_eq!(world.a.message(), Some(&b"second"[..]));
    assert!(world.b.is_acknowledged());
    assert_eq!(world.b.read.len(), 200);
}

#[test]
fn both_idle_beyond_all_times_and_then_either_may_begin() {
    for ours in [true, false] {
        let mut world = world(true, Path::clean(MS), 9, 6);
        exchange(&mut world, 5, 0, 10 * SECOND);
        world.b.write(world.now, b"hello");
        world.pass(200 * SECOND);
        assert!(read(&mut world.a).is_some());
        if ours {
            world.a.write(world.now, b"again").unwrap();
            world.pass(5 * SECOND);
            assert_eq!(world.b.read.last().map(Vec::as_slice), Some(&b"again"[..]));
        } else {
            world.b.write(world.now, b"again");
            world.pass(5 * SECOND);
            assert_eq!(world.a.message(), Some(&b"again"[..]));
        }
    }
}

/// H3: it believes an edge that goes back, runs beyond it, and is not stopped by it any more.
#[test]
fn our_window_edge_never_goes_back() {
    let mut world = world(true, lossy(0.05), 0x00FF_FF00, 7);
    exchange(&mut world, 2000, 2000, 500 * SECOND);
    let edges = packets(&world).into_iter().filter(|(_, header)| header.has(flag::FC)).map(|(_, header)| header.window);
    let mut last = None;
    for edge in edges {
        let back = last.is_some_and(|last: u32| (edge.wrapping_sub(last) << 8) as i32 >> 8 < 0);
        assert!(!back, "{last:?} {edge}");
        last = Some(edge);
    }
    assert!(world.a.stats().beyond < 100, "it ran away: {:?}", world.a.stats());
}

/// H4.
#[test]
fn an_acknowledgement_of_what_was_never_sent_is_ignored() {
    let mut world = world(true, Path::clean(MS), 1, 8);
    world.a.write(world.now, b"one").unwrap();
    world.flush();
    let sent = packets(&world)[0].1.seqno;
    for ackno in [sent.wrapping_add(2), sent.wrapping_add(1000), sent.wrapping_sub(1)] {
        let forged = Header { flags: flag::ACK | flag::DRF, seqno: 0, ackno, window: 0 };
        world.a.receive(world.now, &forged.encode());
        assert!(world.a.stats().acknowledged == 0);
    }
}

/// H5: it acknowledges what its program has read, and forgets to when that is slow.
#[test]
fn a_slow_reader_of_the_peer_gets_everything_with_few_copies() {
    let mut world = world(true, Path::clean(MS), 1, 9);
    world.b.eager = false;
    (0..200).for_each(|n| world.a.write(world.now, &message(n, 100)).unwrap());
    for n in 0..200 {
        world.pass(30 * MS);
        assert!(world.b.read_one(world.now), "message {n}");
    }
    world.pass(60 * SECOND);
    assert_eq!(world.b.read.len(), 200);
    assert!(world.a.stats().in_flight == 0, "{:?}", world.a.stats());
    assert!(world.a.stats().retransmitted < 20, "{:?}", world.a.stats());
}

/// H5: it tells neither what waits for a hole to be filled nor what waits to be read.
#[test]
fn a_lost_packet_is_repaired_without_what_waits_behind_it() {
    let mut world = world(true, Path::clean(MS), 1, 18);
    world.a.write(world.now, b"begin").unwrap();
    world.pass(SECOND);
    world.b.eager = false;
    world.there.path.cut = true;
    world.a.write(world.now, b"lost").unwrap();
    world.flush();
    world.there.path.cut = false;
    (0..100).for_each(|n| world.a.write(world.now, &message(n, 100)).unwrap());
    for _ in 0..500 {
        world.pass(3 * MS);
        world.b.read_one(world.now);
    }
    world.pass(10 * SECOND);
    assert_eq!(world.b.read.len(), 102);
    assert!(world.a.stats().lost < 20, "{:?}", world.a.stats());
}

/// H6: it neither tells its window in mode U nor is its window ever as large again after a loss.
#[test]
fn one_way_traffic_of_mode_u_goes_on_for_ever() {
    for loss in [0.0, 0.1] {
        let mut world = world(false, lossy(loss), 1, 10);
        let mut wrote = 0;
        while wrote < 6000 {
            while wrote < 6000 && world.a.can_write() {
                world.a.write(world.now, &message(wrote, 100)).unwrap();
                wrote += 1;
            }
            let limit = world.now + 10 * SECOND;
            world.step(limit);
            assert!(world.now < 3600 * SECOND, "stopped: {:?}", world.a.stats());
            if world.a.stats().unsent > 50_000 {
                continue;
            }
        }
        world.pass(600 * SECOND);
        assert_eq!(world.a.stats().unsent, 0);
        assert!(world.b.read.len() as f64 > 6000.0 * (0.95 - loss), "{} read", world.b.read.len());
        assert!(world.b.read.windows(2).all(|pair| number(&pair[0]) < number(&pair[1])));
    }
}

/// H6, the other way: 256 losses must not close the window that we tell.
#[test]
fn a_peer_of_mode_u_may_send_for_ever() {
    let mut world = world(false, lossy(0.1), 1, 11);
    let (mut written, mut got) = (0, 0);
    while written < 6000 {
        while written < 6000 && world.b.can_write() {
            world.b.write(world.now, &message(written, 100));
            written += 1;
        }
        let limit = world.now + 10 * SECOND;
        assert!(world.step(limit) || world.b.can_write(), "the peer is stopped at {written}");
        while read(&mut world.a).is_some() {
            got += 1;
        }
    }
    assert!(got > 5000, "{got}");
}

/// H8: it acknowledges after 10 to 15 ms unless it is asked.
#[test]
fn a_window_does_not_wait_for_delayed_acknowledgements() {
    let mut world = world(true, Path::clean(MS / 10), 1, 12);
    let begin = world.now;
    exchange(&mut world, 20_000, 0, 100 * SECOND);
    let rate = 20_000 * SECOND / (world.now - begin);
    // In virtual time, and without pokes 430 000.
    assert!(rate > 500_000, "{rate} messages a second");
}

/// H9.
#[test]
fn a_message_that_does_not_fit_is_refused_with_the_limit() {
    let mut world = world(true, Path::clean(MS), 1, 13);
    let limit = 1412 - HEADER;
    assert_eq!(world.a.limit(), limit);
    assert_eq!(world.a.write(world.now, &vec![0; limit + 1]), Err(Refused::TooLong { limit }));
    world.a.write(world.now, &vec![0; limit]).unwrap();
}

/// H10: what is sent to a program that does not read stops the whole host when its ring is full.
#[test]
fn a_program_that_does_not_read_is_not_flooded() {
    let mut world = world(true, Path::clean(MS), 1, 14);
    world.b.eager = false;
    while world.a.can_write() {
        world.a.write(world.now, &message(0, 1000)).unwrap();
    }
    world.pass(10 * SECOND);
    let early = world.a.stats();
    assert!(early.retransmitted < 50, "{early:?}");
    world.pass(90 * SECOND);
    assert!(world.b.ring_overruns == 0 && world.b.most_in_ring < RING / 2, "{}", world.b.most_in_ring);
    let sent = packets(&world).into_iter().filter(|(_, header)| header.has(flag::DATA)).map(|(_, header)| header.seqno);
    let numbers = sent.collect::<std::collections::BTreeSet<_>>();
    assert!(numbers.len() <= 256, "{} different packets", numbers.len());
    // It reads again before R is over, and gets all of it.
    let wrote = world.a.stats().messages_written as usize;
    world.b.eager = true;
    while world.b.read_one(world.now) {}
    world.pass(300 * SECOND);
    assert_eq!(world.b.read.len(), wrote);
    assert!(world.a.failure().is_none());
}

/// A writer that sleeps until it is told of a window is told until it shows that it knows.
#[test]
fn a_sleeping_writer_is_woken_although_the_news_are_lost() {
    let mut world = world(true, Path::clean(MS), 1, 15);
    let mut written = 0;
    for _ in 0..100 {
        while world.b.can_write() {
            world.b.write(world.now, &message(written, 100));
            written += 1;
        }
        world.pass(20 * MS);
    }
    assert_eq!(written, 256, "our window");
    // All is acknowledged, nothing read; now it is read, and the first word of it is lost.
    world.there.path.cut = true;
    while read(&mut world.a).is_some() {}
    world.pass(50 * MS);
    assert!(!world.b.can_write());
    world.there.path.cut = false;
    world.pass(SECOND);
    assert!(world.b.can_write());
}

#[test]
fn a_silent_peer_is_given_up_after_r() {
    let mut world = world(true, Path { cut: true, ..Path::clean(MS) }, 1, 16);
    world.a.write(world.now, b"anybody?").unwrap();
    let begin = world.now;
    while world.a.failure().is_none() {
        assert!(world.step(u64::MAX - 1));
    }
    assert_eq!((world.now - begin) / SECOND, 120);
    let times = packets(&world).iter().map(|(at, _)| (at - begin) / SECOND).collect::<Vec<_>>();
    assert_eq!(times[..5], [0, 1, 3, 7, 15]);
    assert!(times.len() < 15 && world.a.deadline().is_none() && !world.a.poll_transmit(world.now, &mut vec![]));
    assert_eq!(world.a.write(world.now, b"x"), Err(Refused::Closed));
}

#[test]
fn what_was_written_before_closing_is_delivered_to_a_late_reader() {
    let mut world = world(true, Path::clean(MS), 1, 17);
    world.b.eager = false;
    world.a.write(world.now, b"last words").unwrap();
    world.a.close(world.now);
    world.pass(2 * SECOND);
    assert!(!world.a.is_done());
    assert!(world.b.read_one(world.now));
    world.pass(20 * SECOND);
    assert!(world.a.is_done() && world.a.failure().is_none());
    assert_eq!(world.b.read, [b"last words"]);
}
