//! Between two nodes of ours: windows, fragments, ends.
#![allow(clippy::unwrap_used)]

mod common;

use common::link::Path;
use common::{MS, OWN, SECOND, World, config, message, number};
use ouroboros_frcp::{Config, Connection, Failure, HEADER, Header, MAX_MESSAGE, Peer, Pressure, Refused, SPARE, flag};

type Pair = World<Connection, Connection>;

fn pair(config: Config, path: Path) -> Pair {
    // The numbers wrap soon.
    let a = Connection::new(config, 0xFFFF_FFF0, SECOND);
    let b = Connection::new(config, 0x7FFF_FFF0, SECOND);
    let mut world = World::new(a, b, path, 1);
    world.there.log = Some(vec![]);
    world.back.log = Some(vec![]);
    world
}

fn headers(log: &Option<Vec<(u64, Vec<u8>)>>) -> Vec<(u64, Header, usize)> {
    let decode = |(at, packet): &(u64, Vec<u8>)| {
        let (header, payload) = Header::decode(packet).unwrap();
        (*at, header, payload.len())
    };
    log.iter().flatten().map(decode).collect()
}

fn small_window(window: u32) -> Config {
    config(true, Peer::Own { sack: true, fragments: true, window })
}

/// Write as much as is taken.
fn fill(world: &mut Pair, length: usize) -> u64 {
    let mut wrote = 0;
    loop {
        while world.a.can_write() {
            world.a.write(world.now, &message(wrote, length)).unwrap();
            wrote += 1;
        }
        world.pass(SECOND);
        if !world.a.can_write() {
            return wrote;
        }
    }
}

#[test]
fn a_reader_that_stops_stops_the_writer_and_nothing_is_lost() {
    let mut world = pair(small_window(100), Path::clean(MS));
    let wrote = fill(&mut world, 1000);
    let stats = world.a.stats();
    // All that was sent is acknowledged, for it was received; so silence does not count towards giving up.
    assert_eq!((stats.in_flight, stats.window), (0, 0));
    let before = world.there.sent;
    world.pass(1000 * SECOND);
    assert!(world.a.failure().is_none());
    assert!(world.there.sent - before < 1100, "{} questions in 1000 s", world.there.sent - before);
    for n in 0..wrote {
        if world.b.message().is_none() {
            world.pass(10 * MS);
        }
        assert_eq!(world.b.message().map(number), Some(n));
        world.b.consume();
    }
    assert!(world.a.can_write());
}

#[test]
fn a_window_that_opens_is_told_at_once() {
    let mut world = pair(small_window(100), Path::clean(MS));
    fill(&mut world, 1000);
    world.pass(100 * SECOND);
    let data = |world: &Pair| world.a.stats().data_sent;
    let before = data(&world);
    while world.b.message().is_some() {
        world.b.consume();
    }
    // One way for the news; what may be sent then is on its way.
    world.pass(MS + 1);
    assert!(data(&world) >= before + 16, "{} more", data(&world) - before);
}

#[test]
fn a_window_that_opens_is_asked_for_if_the_news_are_lost() {
    let mut world = pair(small_window(100), Path::clean(MS));
    let wrote = fill(&mut world, 1000);
    world.back.path.cut = true;
    let mut got = 0;
    while world.b.message().is_some() {
        world.b.consume();
        got += 1;
    }
    world.pass(MS);
    world.back.path.cut = false;
    while got < wrote {
        let limit = world.now + 10 * SECOND;
        assert!(world.step(limit), "stopped after {got} of {wrote}");
        while world.b.message().is_some() {
            world.b.consume();
            got += 1;
        }
    }
}

#[test]
fn a_slow_reader_is_not_sent_more_than_it_takes() {
    let mut world = pair(small_window(64), Path::clean(MS));
    let mut wrote = 0;
    for _ in 0..2000 {
        while world.a.can_write() {
            world.a.write(world.now, &message(wrote, 500)).unwrap();
            wrote += 1;
        }
        world.pass(MS);
        world.b.consume();
    }
    let (a, b) = (world.a.stats(), world.b.stats());
    assert_eq!((b.messages_read, b.beyond, a.retransmitted), (2000, 0, 0), "{a:?}");
}

#[test]
fn memory_of_a_flood_beyond_the_window_is_bounded() {
    let mut flow = Connection::new(small_window(64), 1, 0);
    let mut header = Header { flags: flag::DATA | flag::DRF | flag::FIRST, seqno: 5, ..Header::default() };
    for n in 0..100_000u32 {
        header.seqno = 5 + n;
        flow.receive(0, &[&header.encode()[..], &[0; 1400]].concat());
    }
    let stats = flow.stats();
    // What is granted without a word, and no more.
    assert_eq!(stats.beyond, 100_000 - 64);
}

/// Whose memory is shared.
fn thrifty() -> Config {
    Config { thrifty: true, ..config(true, OWN) }
}

fn press(world: &mut Pair, pressure: Pressure) {
    world.a.press(pressure);
    world.b.press(pressure);
}

/// Bytes of a first window.
const FIRST: usize = 64 * 1400;

/// Write as much as is taken and read all that comes, for so long; messages read.
fn stream(world: &mut Pair, length: usize, time: u64) -> u64 {
    let (until, mut read) = (world.now + time, 0);
    while world.now < until {
        while world.a.can_write() {
            world.a.write(world.now, &message(0, length)).unwrap();
        }
        world.pass(MS);
        while world.b.message().is_some() {
            world.b.consume();
            read += 1;
        }
    }
    read
}

/// Read all that comes, for so long.
fn read_for(world: &mut Pair, time: u64) {
    let until = world.now + time;
    while world.now < until {
        world.pass(MS);
        while world.b.message().is_some() {
            world.b.consume();
        }
    }
}

#[test]
fn a_thrifty_flow_holds_its_first_window_for_a_reader_that_does_not_keep_up() {
    let mut world = pair(thrifty(), Path::clean(MS));
    fill(&mut world, 1000);
    world.pass(1000 * SECOND);
    assert_eq!(world.b.memory(), 0, "beside its first window");
    assert!(world.a.failure().is_none());
    // What was not sent is kept, as long as there is memory.
    assert!((400_000..900_000).contains(&world.a.memory()), "{}", world.a.memory());
}

#[test]
fn the_window_of_a_thrifty_flow_grows_with_its_reader_and_goes_back_when_memory_is_short() {
    let mut world = pair(thrifty(), Path::clean(25 * MS));
    stream(&mut world, 1000, 500 * MS);
    let fast = stream(&mut world, 1000, 200 * MS);
    assert!(fast > 3 * 64 * 4, "{fast}");
    assert!(world.b.memory() > 5 * FIRST);
    press(&mut world, Pressure::Tight);
    // What was promised is taken before.
    stream(&mut world, 1000, 15 * SECOND);
    let tight = stream(&mut world, 1000, 200 * MS);
    // What is kept, for each round trip.
    assert!((20 * 3..64 * 5).contains(&tight), "{tight}");
    assert_eq!((world.a.memory() / (2 * SPARE), world.b.memory()), (0, 0));
    press(&mut world, Pressure::Easy);
    stream(&mut world, 1000, 3 * SECOND);
    assert!(stream(&mut world, 1000, 200 * MS) > 2 * tight);
}

#[test]
fn the_window_of_an_idle_thrifty_flow_goes_back_and_grows_again() {
    for reliable in [true, false] {
        let mut world = pair(Config { reliable, ..thrifty() }, Path::clean(25 * MS));
        stream(&mut world, 1000, 500 * MS);
        let grown = world.b.memory();
        assert!(grown > 5 * FIRST, "{grown}");
        // What was written is delivered, and then there is nothing for a while.
        read_for(&mut world, SECOND);
        world.pass(15 * SECOND);
        assert!(world.b.memory() > 4 * FIRST, "{}", world.b.memory());
        world.pass(5 * SECOND);
        assert_eq!((world.b.memory(), world.a.deadline(), world.b.deadline()), (0, None, None));
        let before = world.b.stats();
        let slow = stream(&mut world, 1000, 100 * MS);
        assert!(slow <= 64 * 2 + 8, "{slow}");
        stream(&mut world, 1000, 500 * MS);
        let (a, b) = (world.a.stats(), world.b.stats());
        assert!(world.b.memory() > 5 * FIRST, "{}", world.b.memory());
        assert_eq!((b.beyond - before.beyond, a.retransmitted, b.skipped), (0, 0, 0), "{a:?}");
    }
}

#[test]
fn a_sender_that_rests_never_sends_more_than_is_taken() {
    // Pauses about when windows go back, at either end, on a slow path.
    for pause in [9_500, 10_000, 19_000, 20_000, 40_000] {
        let mut world = pair(thrifty(), Path::clean(40 * MS));
        for _ in 0..3 {
            stream(&mut world, 1000, 500 * MS);
            read_for(&mut world, SECOND);
            world.pass(pause * MS);
        }
        let (a, b) = (world.a.stats(), world.b.stats());
        assert_eq!((b.beyond, a.retransmitted), (0, 0), "{pause}");
    }
}

#[test]
fn parts_of_a_long_message_wait_for_memory_and_nobody_gives_up() {
    let mut world = pair(thrifty(), Path::clean(MS));
    world.b.press(Pressure::Over);
    world.a.write(SECOND, &message(7, MAX_MESSAGE)).unwrap();
    world.pass(1000 * SECOND);
    assert!(world.b.message().is_none());
    assert!((SPARE..SPARE + FIRST + 1400).contains(&world.b.memory()), "{}", world.b.memory());
    assert!(world.a.failure().is_none());
    world.b.press(Pressure::Tight);
    world.pass(3 * SECOND);
    assert_eq!(world.b.message().map(number), Some(7));
}

#[test]
fn no_long_message_begins_while_memory_is_short() {
    let mut world = pair(thrifty(), Path::clean(MS));
    world.a.press(Pressure::Over);
    assert!(world.a.admits(SPARE) && !world.a.admits(SPARE + 1));
    let taken = fill(&mut world, 100);
    assert!(world.a.memory() < SPARE + 1000, "{taken}: {}", world.a.memory());
}

#[test]
fn one_way_traffic_for_hours_keeps_both_sides_in_step() {
    let mut world = pair(config(true, OWN), Path::clean(5 * MS));
    for (n, silence) in [1, 50, 130, 160, 200, 400, 1, 3600].into_iter().enumerate() {
        world.a.write(world.now, &message(n as u64, 100)).unwrap();
        world.pass(silence * SECOND);
        assert_eq!(world.b.message().map(number), Some(n as u64));
        world.b.consume();
    }
    // And then the other, which has never sent data.
    world.b.write(world.now, b"at last").unwrap();
    world.pass(SECOND);
    assert_eq!(world.a.message(), Some(&b"at last"[..]));
    assert_eq!(world.a.stats().retransmitted + world.b.stats().retransmitted, 0);
}

#[test]
fn an_idle_flow_never_wakes() {
    for reliable in [true, false] {
        let mut world = pair(config(reliable, OWN), Path::clean(5 * MS));
        for n in 0..100 {
            world.a.write(world.now, &message(n, 100)).unwrap();
        }
        world.pass(SECOND);
        while world.b.message().is_some() {
            world.b.consume();
        }
        world.pass(5 * SECOND);
        assert_eq!((world.a.deadline(), world.b.deadline()), (None, None));
    }
}

#[test]
fn a_long_message_is_carried_in_fragments_that_say_what_they_are() {
    let mut world = pair(config(true, OWN), Path::clean(MS));
    let long = message(1, 3000);
    world.a.write(world.now, &long).unwrap();
    world.a.write(world.now, b"short").unwrap();
    world.pass(MS / 2);
    let flags = headers(&world.there.log).iter().map(|(_, header, length)| (header.flags, *length)).collect::<Vec<_>>();
    let d = flag::DATA;
    assert_eq!(flags, [(d | flag::DRF | 0x60, 1400), (d | 0x40, 1400), (d, 200), (d | 0x20, 5)]);
    world.pass(SECOND);
    assert_eq!(world.b.message(), Some(&long[..]));
    world.b.consume();
    assert_eq!(world.b.message(), Some(&b"short"[..]));
}

#[test]
fn the_longest_message_passes_a_window_that_is_smaller() {
    let path = Path { loss: 0.02, ..Path::clean(MS) };
    let mut world = pair(small_window(16), path);
    let limit = world.a.limit();
    assert_eq!(limit, 1 << 20);
    assert_eq!(world.a.write(world.now, &vec![0; limit + 1]), Err(Refused::TooLong { limit }));
    for n in 0..3 {
        world.a.write(world.now, &message(n, limit)).unwrap();
        while world.b.message().is_none() {
            world.pass(SECOND);
            assert!(world.now < 3600 * SECOND, "{:?}", world.a.stats());
        }
        assert!(world.b.message() == Some(&message(n, limit)[..]));
        world.b.consume();
    }
}

#[test]
fn without_fragments_the_limit_is_a_packet() {
    let flow = Connection::new(config(true, Peer::Own { sack: true, fragments: false, window: 100 }), 1, 0);
    assert_eq!(flow.limit(), 1412 - HEADER);
}

#[test]
fn a_message_of_mode_u_that_lost_a_fragment_is_dropped_whole() {
    let path = Path { loss: 0.05, ..Path::clean(MS) };
    let mut world = pair(config(false, OWN), path);
    for n in 0..300 {
        while !world.a.can_write() {
            world.pass(10 * MS);
        }
        world.a.write(world.now, &message(n, 1 + (n as usize * 97) % 9000)).unwrap();
    }
    world.pass(10 * SECOND);
    let mut last = None;
    while let Some(read) = world.b.message().map(<[u8]>::to_vec) {
        let n = number(&read);
        assert!(last.is_none_or(|last| last < n));
        assert_eq!(read, message(n, 1 + (n as usize * 97) % 9000));
        last = Some(n);
        world.b.consume();
    }
    let stats = world.b.stats();
    assert!(stats.messages_read > 150 && stats.broken > 10 && stats.skipped > 20, "{stats:?}");
}

#[test]
fn acknowledgements_list_what_came_out_of_order() {
    let mut world = pair(config(true, OWN), Path::clean(MS));
    (0..5).for_each(|n| world.a.write(world.now, &message(n, 100)).unwrap());
    world.pass(MS / 2);
    let packets = world.there.log.take().unwrap();
    // The second and the fourth are lost.
    let mut receiver = Connection::new(config(true, OWN), 9, SECOND);
    [0, 2, 4].iter().for_each(|n: &usize| receiver.receive(SECOND, &packets[*n].1));
    let mut out = vec![];
    assert!(receiver.poll_transmit(SECOND, &mut out));
    let (header, ranges) = Header::decode(&out).unwrap();
    assert_eq!(header.flags, flag::ACK | flag::FC | flag::DRF);
    assert_eq!((header.seqno, header.ackno), (9, 0xFFFF_FFF1));
    let words = ranges.chunks(4).map(|word| u32::from_be_bytes(word.try_into().unwrap())).collect::<Vec<_>>();
    assert_eq!(words, [0xFFFF_FFF4, 0xFFFF_FFF5, 0xFFFF_FFF2, 0xFFFF_FFF3]);
    out.clear();
    assert!(!receiver.poll_transmit(SECOND, &mut out));
}

#[test]
fn a_lost_packet_is_sent_again_within_two_round_trips() {
    let mut world = pair(config(true, OWN), Path::clean(10 * MS));
    world.a.write(world.now, b"warm up").unwrap();
    world.pass(SECOND);
    world.there.path.cut = true;
    world.a.write(world.now, b"lost").unwrap();
    world.pass(MS);
    world.there.path.cut = false;
    (0..5).for_each(|n| world.a.write(world.now, &message(n, 100)).unwrap());
    world.pass(35 * MS);
    assert_eq!(world.b.stats().messages_read, 0);
    world.b.consume();
    assert_eq!(world.b.message(), Some(&b"lost"[..]));
}

#[test]
fn the_end_of_what_was_sent_is_probed_before_the_timeout() {
    let mut world = pair(config(true, OWN), Path::clean(10 * MS));
    (0..10).for_each(|n| world.a.write(world.now, &message(n, 100)).unwrap());
    world.pass(SECOND);
    world.there.path.cut = true;
    world.a.write(world.now, b"the end").unwrap();
    world.pass(MS);
    world.there.path.cut = false;
    world.pass(80 * MS);
    let stats = world.a.stats();
    assert_eq!((stats.probes, stats.timeouts, stats.in_flight), (1, 0, 0), "{stats:?}");
}

#[test]
fn overtaken_packets_are_waited_for_once_that_was_seen() {
    let path = Path { rate: 50_000_000, reorder: 0.1, late: 3 * MS, ..Path::clean(10 * MS) };
    let mut world = pair(config(true, OWN), path);
    for round in 0..100 {
        (0..50).for_each(|n| world.a.write(world.now, &message(round * 50 + n, 1000)).unwrap());
        world.pass(50 * MS);
        while world.b.message().is_some() {
            world.b.consume();
        }
    }
    let stats = world.a.stats();
    assert_eq!(world.b.stats().messages_read, 5000);
    assert!(stats.retransmitted < 250, "{stats:?}");
}

#[test]
fn a_partition_of_100_seconds_is_survived_and_one_of_200_is_told() {
    let mut world = pair(config(true, OWN), Path::clean(MS));
    world.a.write(world.now, b"before").unwrap();
    world.pass(SECOND);
    for path in [&mut world.there.path, &mut world.back.path] {
        path.cut = true;
    }
    world.a.write(world.now, b"within").unwrap();
    world.pass(100 * SECOND);
    world.there.path.cut = false;
    world.back.path.cut = false;
    world.pass(10 * SECOND);
    world.b.consume();
    assert_eq!(world.b.message(), Some(&b"within"[..]));
    world.there.path.cut = true;
    world.a.write(world.now, b"never").unwrap();
    let begin = world.now;
    world.pass(200 * SECOND);
    assert_eq!(world.a.failure(), Some(Failure::GivenUp));
    assert!(world.a.is_done() && world.a.deadline().is_none());
    let last = headers(&world.there.log).last().unwrap().0;
    assert!((100 * SECOND..=120 * SECOND).contains(&(last - begin)), "{}", last - begin);
}

#[test]
fn a_closed_flow_lingers_until_all_is_acknowledged() {
    let path = Path { loss: 0.2, ..Path::clean(10 * MS) };
    let mut world = pair(config(true, OWN), path);
    (0..200).for_each(|n| world.a.write(world.now, &message(n, 1000)).unwrap());
    world.a.close(world.now);
    assert_eq!(world.a.write(world.now, b"late"), Err(Refused::Closed));
    assert!(!world.a.is_done() && !world.a.can_write());
    let mut got = 0;
    while !world.a.is_done() {
        let limit = world.now + 10 * SECOND;
        assert!(world.step(limit), "nothing happens any more");
        while world.b.message().is_some() {
            world.b.consume();
            got += 1;
        }
    }
    assert!(world.a.failure().is_none());
    assert_eq!(got, 200);
}

#[test]
fn what_comes_to_a_closed_flow_is_acknowledged_before_it_is_gone() {
    let mut world = pair(config(true, OWN), Path::clean(MS));
    world.b.write(world.now, b"unread").unwrap();
    world.pass(MS + 1);
    world.a.close(world.now);
    assert!(!world.a.is_done(), "it owes an acknowledgement");
    world.flush();
    assert!(world.a.is_done());
    assert_eq!(world.a.message(), None);
    world.pass(SECOND);
    assert_eq!(world.b.stats().in_flight, 0);
}

#[test]
fn lingering_for_a_program_that_never_reads_is_bounded() {
    let mut world = pair(small_window(16), Path::clean(MS));
    fill(&mut world, 1000);
    world.a.close(world.now);
    world.pass(121 * SECOND);
    assert!(world.a.is_done());
    assert_eq!(world.a.failure(), Some(Failure::GivenUp));
}

#[test]
fn a_closed_flow_of_mode_u_is_done_when_all_is_sent() {
    let mut world = pair(config(false, OWN), Path::clean(MS));
    (0..100).for_each(|n| world.a.write(world.now, &message(n, 1000)).unwrap());
    world.a.close(world.now);
    assert!(!world.a.is_done());
    world.pass(SECOND);
    assert!(world.a.is_done());
    assert_eq!(world.a.stats().data_sent, 100);
}

#[test]
fn mode_u_keeps_to_the_rate_of_the_path() {
    let path = Path { rate: 100_000_000, queue: 100, ..Path::clean(5 * MS) };
    let mut world = pair(config(false, OWN), path);
    let (mut wrote, mut got, end) = (0, 0, world.now + 5 * SECOND);
    loop {
        while world.a.can_write() {
            world.a.write(world.now, &message(wrote, 1400)).unwrap();
            wrote += 1;
        }
        if !world.step(end) {
            break;
        }
        while world.b.message().is_some() {
            world.b.consume();
            got += 1;
        }
    }
    assert!(got * 1400 * 8 > 5 * 70_000_000, "{got} messages");
    let lost = world.there.dropped as f64 / world.there.sent as f64;
    assert!(lost < 0.03, "{lost} lost, {:?}", world.a.stats());
}

#[test]
fn a_full_queue_refuses_until_there_is_room() {
    let mut flow = Connection::new(config(true, OWN), 1, 0);
    let mut count = 0;
    while flow.can_write() {
        flow.write(0, &[0; 1000]).unwrap();
        count += 1;
        assert!(count < 100_000, "no bound");
    }
    assert_eq!(flow.write(0, b"x"), Err(Refused::Full));
    let mut empty = Connection::new(config(true, OWN), 1, 0);
    let mut count = 0;
    while empty.can_write() {
        empty.write(0, b"").unwrap();
        count += 1;
        assert!(count < 100_000, "no bound");
    }
}

#[test]
fn no_more_waits_than_was_asked_for() {
    for (unsent, length, taken) in
        [(2000, 999, 3), (2000, 1000, 2), (2000, 5000, 1), (0, 1, 1), (usize::MAX, 1000, 8192)]
    {
        let mut flow = Connection::new(Config { unsent, ..config(true, OWN) }, 1, 0);
        let fill = |flow: &mut Connection| (0..10_000).take_while(|_| flow.write(0, &vec![0; length]).is_ok()).count();
        assert_eq!(fill(&mut flow), taken, "{unsent} {length}");
        assert!(!flow.can_write());
        if unsent <= 2000 {
            while flow.poll_transmit(0, &mut vec![]) {}
            assert_eq!(fill(&mut flow), taken, "what was sent does not count");
        }
    }
}
