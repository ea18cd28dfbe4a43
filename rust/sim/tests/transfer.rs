//! Members of a unicast layer, in virtual time: packets cross several of them.
#![allow(clippy::unwrap_used)]

mod common;

use common::layer::*;
use common::*;
use ouroboros_sim::stack::{Carrier, Outgoing, Run, Setup, Table, TransferSettings, User};
use ouroboros_sim::{Network, Program};
use ouroboros_wire::management::Report;
use ouroboros_wire::pci::Pci;
use ouroboros_wire::update::Word;

fn header(destination: u32, ttl: u8, eid: u64) -> [u8; 15] {
    Pci { destination, cube: 0, ttl, ecn: 0, eid }.write()
}

#[test]
fn flows_of_all_kinds_cross_a_line_both_ways() {
    for lower in [RAW, CREDIT, RELIABLE, ENCRYPTED] {
        for quality in [RAW, RELIABLE, ENCRYPTED, SEALED] {
            let mut line = Layer::line(3, lower);
            let flows = line.flow(0, 2, Quality { credit: false, ..quality });
            let count = if quality.reliable { 1000 } else { 50 };
            line.exchange((0, 2), flows, count, 700);
            let counters = line.transfer(1);
            assert!(counters.forwarded >= 2 * count, "{lower:?} {quality:?} {counters:?}");
        }
    }
}

#[test]
fn what_is_in_transit_is_not_decrypted_and_keeps_all_but_its_ttl() {
    let mut line = Layer::line(3, RAW);
    // The last node is one whose flow we read.
    let last = line.lower[&(2, 1)];
    let (now, take) = (line.net.now(), User::Control(u32::MAX));
    line.net.stack(2).hand(now, last, take);
    let flows = line.flow(0, 2, Quality { credit: false, ..ENCRYPTED });
    line.start(0, flows[0], source(1, 64));
    line.run(SECOND / 10);
    let (_, _, packet) = &line.messages[0];
    assert_eq!(packet[..15], header(name(2), MAX_TTL - 1, 103 + 4));
    assert!(packet.len() > 15 + 64);
}

/// What leaves the node in the middle of a line, of packets that arrive together there in a buffer of so many bytes, and whether
/// it leaves from that buffer; and what leaves if they are in no such buffer.
fn passed_on(packets: &[Vec<u8>], size: usize, next: Quality) -> (Vec<Vec<u8>>, bool, Vec<Vec<u8>>) {
    let [(there, same), (expected, _)] = [true, false].map(|own| {
        let mut line = Layer::new(3, plain());
        line.join(0, 1, RAW);
        line.join(1, 2, next);
        line.route();
        let (now, port, stride) = (line.net.now(), line.ports[1], packets[0].len());
        let (mut buffer, stack) = (packets.concat(), line.net.stack(1));
        let length = buffer.len();
        buffer.resize(size, 0xee);
        let before = buffer.as_ptr();
        if own {
            stack.receive_in(now, port, address(0), &mut buffer, (length, stride));
        } else {
            stack.receive(now, port, address(0), Run::new(&buffer[..length], stride));
        }
        assert_eq!(buffer.len(), size);
        let (mut left, mut same) = (Vec::new(), false);
        while let Some(Outgoing { bytes, segment, .. }) = stack.transmit(port) {
            same |= bytes.as_ptr() == before;
            left.extend(bytes.chunks(segment.unwrap_or(bytes.len())).map(<[u8]>::to_vec));
            stack.sent(port, true);
        }
        let counted = line.transfer(1);
        assert_eq!(counted.forwarded + counted.waiting + counted.too_long + counted.heard, packets.len() as u64);
        (left, same)
    });
    (there, same, expected)
}

#[test]
fn a_run_leaves_from_where_it_came_in_if_nothing_but_headers_change() {
    // To the flow of node 1 whose other end is at node 0.
    let to = |node, eid, length| [&103u32.to_be_bytes()[..], &header(name(node), 60, eid), &vec![7; length]].concat();
    let run = |count: usize, last| [vec![to(2, 64, 1300); count - 1], vec![last]].concat();
    let full = run(49, to(2, 64, 1300));
    let size = 1 << 16;
    let cases = [
        (full.clone(), size, RAW, true),
        (run(49, to(2, 64, 1200)), size, RAW, true),
        // It would take a buffer for little, or others can join it.
        (full.clone(), 1 << 18, RAW, false),
        (run(40, to(2, 64, 1)), size, RAW, false),
        // What leaves has another form, is not all of it, or is too long.
        (full.clone(), size, ENCRYPTED, false),
        (full, size, RELIABLE, false),
        (run(49, to(2, 65, 1300)), size, RAW, false),
        (run(49, to(1, 1, 1300)), size, RAW, false),
        (vec![to(2, 64, MOST); 45], size, RAW, false),
    ];
    for (number, (packets, size, next, same)) in cases.into_iter().enumerate() {
        let (there, from_there, expected) = passed_on(&packets, size, next);
        assert_eq!((there, from_there), (expected.clone(), same), "{number}");
        let passes = |packet: &&Vec<u8>| packet[4..8] == name(2).to_le_bytes() && packet.len() <= MOST;
        let changed = packets.iter().filter(passes).map(|packet| {
            let mut packet = packet.clone();
            packet[..4].copy_from_slice(&105u32.to_be_bytes());
            packet[9] -= 1;
            packet
        });
        assert!(next != RAW || changed.eq(expected), "{number}");
    }
}

#[test]
fn a_ttl_is_enough_for_so_many_lower_flows_and_no_more() {
    for (max_ttl, nodes, arrives) in [(1, 2, true), (1, 3, false), (2, 3, true), (2, 4, false), (0, 4, true)] {
        let mut line = Layer::new(nodes, TransferSettings { max_ttl, ..plain() });
        (1..nodes).for_each(|node| line.join(node - 1, node, RAW));
        line.route();
        let (now, member) = (line.net.now(), line.members[0]);
        line.net.stack(0).send_pdu(now, member, name(nodes - 1), 1, 0, b"hello");
        line.run(SECOND / 10);
        let dropped: u64 = (0..nodes).map(|node| line.transfer(node).ttl).sum();
        assert_eq!((line.heard.len(), dropped), (usize::from(arrives), u64::from(!arrives)), "{max_ttl} {nodes}");
    }
}

#[test]
fn components_hear_packets_by_their_numbers_and_from_where_they_came() {
    let mut line = Layer::line(3, RAW);
    for (destination, eid) in [(2, 0), (2, 1), (0, 1), (2, 2), (2, 3), (2, 63), (2, 64)] {
        let (now, member) = (line.net.now(), line.members[0]);
        line.net.stack(0).send_pdu(now, member, name(destination), eid, 0, b"hello");
        line.run(SECOND / 10);
    }
    let last = line.lower[&(2, 1)];
    let heard = |node, eid, from| (node, eid, from, b"hello".to_vec());
    assert_eq!(
        line.heard,
        [heard(2, 0, Some(last)), heard(2, 1, Some(last)), heard(0, 1, None), heard(2, 2, Some(last))]
    );
    let snapshot = line.net.stack(2).snapshot(line.members[2]);
    assert_eq!((snapshot.transfer.unwrap().unknown_eid, snapshot.layer.unknown), (2, 1));
}

#[test]
fn a_probe_is_heard_where_its_ttl_runs_out() {
    let mut line = Layer::line(4, RAW);
    for ttl in [1, 2, 3, 0, 255] {
        let (now, member) = (line.net.now(), line.members[0]);
        line.net.stack(0).send_pdu(now, member, name(3), 2, ttl, b"who");
        line.run(SECOND / 10);
    }
    let places: Vec<_> = line.heard.iter().map(|(node, eid, from, _)| (*node, *eid, *from)).collect();
    let came = |node| (node, 2, Some(line.lower[&(node, node - 1)]));
    assert_eq!(places, [came(1), came(2), came(3), came(3), came(3)]);
    // Of other components it is a packet as any.
    let (now, member) = (line.net.now(), line.members[0]);
    line.net.stack(0).send_pdu(now, member, name(3), 1, 2, b"who");
    line.run(SECOND / 10);
    assert_eq!((line.heard.len(), line.transfer(1).ttl, line.transfer(2).ttl), (5, 0, 1));
}

#[test]
fn what_a_hostile_neighbour_sends_is_dropped_with_its_reason() {
    let mut line = Layer::line(3, RAW);
    let evil = line.lower[&(0, 1)];
    let far = name(2);
    for packet in [
        header(0x99, 60, 64).to_vec(),
        header(far, 1, 64).to_vec(),
        header(far, 0, 64).to_vec(),
        header(name(0), 60, 64).to_vec(),
        header(far, 60, 64)[..14].to_vec(),
        b"x".to_vec(),
        [&header(far, 60, 0)[..], &[7; MOST]].concat(),
        header(name(1), 60, 5).to_vec(),
    ] {
        line.inject(0, evil, &packet);
        line.run(SECOND / 100);
    }
    let got = line.transfer(1);
    let reasons = [got.no_route, got.ttl, got.returned, got.malformed, got.too_long, got.unknown_eid, got.forwarded];
    assert_eq!(reasons, [1, 2, 1, 2, 1, 1, 0], "{got:?}");
    // One that would live for long is given what the layer allows.
    line.inject(0, evil, &header(far, 255, 1));
    line.run(SECOND / 100);
    assert_eq!((line.heard.len(), line.transfer(1).forwarded), (1, 1));
}

#[test]
fn a_new_lower_flow_to_a_neighbour_is_used_at_once_and_the_old_one_when_it_is_gone() {
    let mut line = Layer::line(3, RAW);
    let old = line.lower[&(1, 2)];
    line.join(1, 2, RAW);
    let new = line.lower[&(1, 2)];
    let flows = line.flow(0, 2, RAW);
    line.exchange((0, 2), flows, 20, 100);
    let sent = |line: &mut Layer, flow| {
        let port = line.ports[1];
        let snapshot = line.net.stack(1).snapshot(port);
        snapshot.flows.iter().find(|(id, _)| *id == flow).map(|(_, counted)| counted.0.sent)
    };
    assert_eq!((sent(&mut line, old), sent(&mut line, new)), (Some(0), Some(20)));
    line.net.stack(1).drop_flow(new);
    let far = line.lower[&(2, 1)];
    line.net.stack(2).drop_flow(far);
    line.exchange((0, 2), flows, 20, 100);
    assert_eq!(sent(&mut line, old), Some(20));
    let member = line.members[1];
    line.net.stack(1).take_back(member, old);
    line.start(0, flows[0], source(3, 100));
    line.run(SECOND / 10);
    assert_eq!(line.transfer(1).no_route, 3);
    let (now, member) = (line.net.now(), line.members[1]);
    line.net.stack(1).send_pdu(now, member, name(2), 1, 0, b"no way");
    assert_eq!((line.transfer(1).no_route, line.transfer(1).unspoken), (3, 1));
}

#[test]
fn a_silent_neighbour_is_passed_round_until_it_is_heard_again() {
    let alive = Quality { timeout: 400, ..RAW };
    let mut square = Layer::new(4, plain());
    for (one, other) in [(0, 1), (1, 3), (0, 2), (2, 3)] {
        square.join(one, other, alive);
    }
    square.route();
    let flows = square.flow(0, 3, RAW);
    square.exchange((0, 3), flows, 20, 100);
    let used = |square: &mut Layer| [1, 2].map(|node| square.transfer(node).forwarded);
    assert_eq!(used(&mut square), [40, 0]);
    // Node 1 takes and says nothing any more.
    let port = square.ports[1];
    square.net.allow(1, port, Some(0));
    square.run(SECOND);
    assert_eq!(square.states.iter().filter(|state| !state.2).count(), 2);
    square.exchange((0, 3), flows, 20, 100);
    assert_eq!(used(&mut square), [40, 40]);
    square.net.allow(1, port, None);
    square.run(SECOND);
    square.exchange((0, 3), flows, 20, 100);
    assert_eq!(used(&mut square), [80, 40]);
}

#[test]
fn a_flow_without_a_way_waits_for_one() {
    let mut line = Layer::line(3, RAW);
    let flows = line.flow(0, 2, RAW);
    line.set_ways(0, &[], false);
    line.start(0, flows[0], source(30, 100));
    line.start(2, flows[1], Program::Sink);
    line.run(SECOND);
    assert_eq!(line.tally(2, flows[1]).read, 0);
    line.route();
    line.run(SECOND);
    assert_eq!(line.tally(2, flows[1]).read, 30);
}

#[test]
fn the_first_packets_for_a_flow_are_kept_from_wherever_they_come() {
    let mut line = Layer::line(3, RAW);
    let member = line.members[2];
    line.net.stack(2).reserve(member, 107, None);
    line.inject(0, line.lower[&(0, 1)], &[&header(name(2), 60, 107)[..], b"early"].concat());
    line.run(SECOND / 10);
    let flows = line.flow(0, 2, RAW);
    line.start(2, flows[1], Program::Sink);
    line.run(SECOND / 10);
    assert_eq!(line.tally(2, flows[1]).bytes, 5);
}

#[test]
fn packets_that_came_before_the_hand_over_are_forwarded_in_order() {
    let mut line = Layer::line(3, RAW);
    let [near, far] = line.lower_flow(0, 1, RAW);
    for word in [&b"who are you"[..], &header(name(2), 60, 0), &header(name(2), 60, 1)] {
        line.inject(0, near, word);
        line.run(SECOND / 100);
    }
    assert_eq!(line.messages, [(1, far, b"who are you".to_vec())]);
    line.hand_over(1, 0, far);
    line.run(SECOND / 10);
    assert_eq!(line.heard.iter().map(|heard| heard.1).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn equal_ways_are_each_used_by_some_flows_and_never_change_within_one() {
    let mut square = Layer::new(4, plain());
    for (one, other) in [(0, 1), (1, 3), (0, 2), (2, 3)] {
        square.join(one, other, RAW);
    }
    square.route();
    square.set_ways(0, &[(name(3), vec![name(1), name(2)])], true);
    square.set_ways(3, &[(name(0), vec![name(1)])], true);
    let mut through = [0; 2];
    for _ in 0..40 {
        let before = [1, 2].map(|node| square.transfer(node).forwarded);
        let flows = square.flow(0, 3, RAW);
        square.start(0, flows[0], source(10, 100));
        square.run(SECOND / 100);
        let used: Vec<u64> = [1, 2].iter().map(|node| square.transfer(*node).forwarded - before[node - 1]).collect();
        assert!(used == [10, 0] || used == [0, 10], "{used:?}");
        through[usize::from(used[1] > 0)] += 1;
    }
    assert!(through.iter().all(|flows| *flows > 8), "{through:?}");
}

#[test]
fn alternates_are_used_when_none_of_the_equal_ways_is_up_and_by_the_next_packet() {
    for (spread, ways) in [(false, vec![name(1), name(2)]), (true, vec![name(1), 0, name(2)])] {
        let mut square = Layer::new(4, plain());
        for (one, other) in [(0, 1), (1, 3), (0, 2), (2, 3)] {
            square.join(one, other, RAW);
        }
        square.route();
        square.set_ways(0, &[(name(3), ways)], spread);
        let (member, lower) = (square.members[0], square.lower[&(0, 1)]);
        let mut said = 0;
        let mut say = |square: &mut Layer| {
            for _ in 0..20 {
                let now = square.net.now();
                // Each is of another flow, as far as a hash can tell.
                said += 1;
                square.net.stack(0).send_pdu(now, member, name(3), 64 + said, 0, b"x");
            }
            square.run(SECOND / 100);
            [1, 2].map(|node| square.transfer(node).forwarded)
        };
        assert_eq!(say(&mut square), [20, 0], "{spread}");
        square.net.stack(0).take_back(member, lower);
        assert_eq!(say(&mut square), [20, 20], "{spread}");
        square.hand_over(0, 1, lower);
        assert_eq!(say(&mut square), [40, 20], "{spread}");
    }
}

/// The port of the middle node takes nothing; then it does again.
fn dammed(lower: Quality) -> Layer {
    let mut line = Layer::line(3, lower);
    let port = line.ports[1];
    line.net.allow(1, port, Some(0));
    line
}

fn open(line: &mut Layer) {
    let port = line.ports[1];
    line.net.allow(1, port, None);
}

#[test]
fn what_finds_no_room_waits_in_order_and_goes_on() {
    for lower in [RAW, RELIABLE, ENCRYPTED] {
        let mut line = dammed(lower);
        let flows = line.flow(0, 2, RAW);
        line.start(2, flows[1], Program::Sink);
        line.start(0, flows[0], source(800, 1000));
        line.run(20 * MS);
        let held = line.transfer(1);
        open(&mut line);
        line.run(SECOND);
        let (got, tally) = (line.transfer(1), line.tally(2, flows[1]));
        assert_eq!((tally.read, tally.disordered), (800, 0), "{lower:?} {held:?} {got:?}");
        assert_eq!((got.waiting, got.queue_full, got.expired), (0, 0, 0));
        if lower == RAW {
            // What the stage of the port took before it was full is not among them.
            assert!((400..800).contains(&held.waiting), "{held:?}");
        }
    }
}

#[test]
fn a_queue_is_bounded_and_what_waits_for_too_long_is_dropped() {
    let mut line = dammed(RAW);
    let flows = line.flow(0, 2, RAW);
    line.start(2, flows[1], Program::Sink);
    line.start(0, flows[0], source(5000, 100));
    line.run(50 * MS);
    let held = line.transfer(1);
    assert_eq!((held.waiting, held.waiting + held.forwarded + held.queue_full), (1024, 5000), "{held:?}");
    line.run(100 * MS);
    open(&mut line);
    line.run(SECOND);
    let got = line.transfer(1);
    assert_eq!((got.waiting, got.expired, line.tally(2, flows[1]).read), (0, 1024, got.forwarded));
}

#[test]
fn a_flood_through_a_node_takes_nothing_from_another_flow() {
    let mut line = Layer::line(3, RAW);
    let (flood, thin) = (line.flow(0, 2, RAW), line.flow(0, 2, RAW));
    [flood, thin].iter().for_each(|flows| line.start(2, flows[1], Program::Sink));
    line.start(0, flood[0], Program::Source { count: 60_000, length: 1000, interval: 2 * US, closes: false });
    line.start(0, thin[0], Program::Source { count: 200, length: 100, interval: 500 * US, closes: false });
    // As fast as a hundredth of that.
    for _ in 0..400 {
        let port = line.ports[1];
        line.net.allow(1, port, Some(1));
        line.run(500 * US);
    }
    open(&mut line);
    line.run(SECOND);
    let (flood, thin) = (line.tally(2, flood[1]), line.tally(2, thin[1]));
    assert_eq!((thin.read, thin.disordered), (200, 0), "{:?}", line.transfer(1));
    assert!(flood.read < 60_000, "{flood:?}");
}

#[test]
fn a_neighbour_that_floods_costs_others_at_most_a_tenth_of_their_rate() {
    let got = |flooded: bool, settings| {
        let mut star = Layer::new(4, settings);
        [0, 2, 3].iter().for_each(|other| star.join(1, *other, RAW));
        star.route();
        let flows = star.flow(3, 2, RAW);
        star.start(2, flows[1], Program::Sink);
        star.start(3, flows[0], Program::Source { count: u64::MAX, length: 1000, interval: 50 * US, closes: false });
        let (evil, port) = (star.lower[&(0, 1)], star.ports[1]);
        for step in 0..500 {
            star.net.allow(1, port, Some(1));
            // Of as many flows as there are packets, in the highest cube; three times as much as leaves.
            for number in 0..if flooded { 150 } else { 0 } {
                let pci = Pci { destination: name(2), cube: 2, ttl: 60, ecn: 0, eid: (step << 20) + number + 64 };
                star.inject(0, evil, &[&pci.write()[..], &[7; 1000]].concat());
            }
            star.run(MS);
        }
        let lost = star.transfer(1).queue_full;
        (star.tally(2, flows[1]).read, lost)
    };
    for settings in [plain(), caring()] {
        let (alone, beside) = (got(false, settings), got(true, settings));
        assert!(alone.0 > 9000 && alone.1 == 0, "{alone:?}");
        assert!(beside.0 * 10 >= alone.0 * 9, "{beside:?} of {alone:?}");
        assert!(beside.1 > 10_000, "{beside:?}");
    }
}

#[test]
fn what_waits_for_a_neighbour_that_is_gone_takes_another_way() {
    let mut square = Layer::new(4, plain());
    for (one, other) in [(0, 1), (1, 2), (2, 3)] {
        square.join(one, other, RAW);
    }
    // The other end says nothing of what it got, so what is beyond the window waits.
    let [near, far] = square.uneven_flow(1, 3, [CREDIT, RAW]);
    square.hand_over(1, 3, near);
    square.hand_over(3, 1, far);
    square.route();
    let flows = square.flow(0, 3, RAW);
    square.start(3, flows[1], Program::Sink);
    square.start(0, flows[0], source(300, 1000));
    square.run(4 * MS);
    let held = square.transfer(1);
    assert!(held.waiting > 200 && held.forwarded + held.waiting == 300, "{held:?}");
    square.net.stack(1).drop_flow(near);
    square.run(SECOND);
    assert_eq!((square.tally(3, flows[1]).read, square.tally(3, flows[1]).disordered), (300, 0));
    assert_eq!(square.transfer(2).forwarded, held.waiting);
}

/// Packets for no flow that a member has.
fn unknown(layer: &mut Layer, node: usize) -> u64 {
    let member = layer.members[node];
    layer.net.stack(node).snapshot(member).layer.unknown
}

#[test]
fn what_waits_for_a_neighbour_that_is_gone_does_not_go_back_where_it_came_from() {
    let mut line = Layer::new(3, plain());
    line.join(0, 1, RAW);
    let [near, far] = line.uneven_flow(1, 2, [CREDIT, RAW]);
    line.hand_over(1, 2, near);
    line.hand_over(2, 1, far);
    line.route();
    // When node 2 is gone, the table has nothing but node 0.
    line.set_ways(1, &[(name(0), vec![name(0)]), (name(2), vec![name(2), name(0)])], false);
    let flows = line.flow(0, 2, RAW);
    line.start(0, flows[0], source(300, 1000));
    line.run(4 * MS);
    let held = line.transfer(1);
    assert!(held.waiting > 200, "{held:?}");
    line.net.stack(1).drop_flow(near);
    line.run(SECOND);
    let got = line.transfer(1);
    assert_eq!((got.returned, got.waiting, got.forwarded), (held.waiting, 0, held.forwarded), "{got:?}");
}

/// As by a neighbour who takes them for those of somebody else, or keeps them.
#[test]
fn words_for_no_flow_or_that_come_back_to_their_sender_are_counted_and_change_nothing() {
    let mut line = Layer::new(2, caring());
    line.join(0, 1, CREDIT);
    line.route();
    let flows = line.flow(0, 1, CREDIT);
    line.exchange((0, 1), flows, 100, 500);
    let before = line.transfer(0);
    let evil = line.lower[&(1, 0)];
    // Of the flow, 104 is the end here, and 105 the one at the neighbour.
    let report = |source, destination| Report { source, destination, counted: 50, room: 1 << 20, wait: true };
    let words = [
        Word::Congested(105, 8191),
        Word::Congested(0, 8191),
        Word::Congested(u64::MAX, 8191),
        Word::Report(report(104, 105)),
        Word::Report(report(104, 104)),
        Word::Report(report(7, 104)),
    ];
    for word in words {
        let packet = [&header(name(0), 60, 0)[..], &word.write()].concat();
        line.inject(1, evil, &packet);
        line.run(MS);
    }
    let member = line.members[0];
    let layer = line.net.stack(0).snapshot(member).layer;
    assert_eq!((line.transfer(0).words, layer.unknown, layer.wrong_source), (before.words, 4, 2));
    let flows = line.flow(0, 1, CREDIT);
    line.exchange((0, 1), flows, 100, 500);
}

fn caring() -> TransferSettings {
    TransferSettings { ecn: true, ..plain() }
}

/// Three nodes in a row, of which the middle one takes a call each millisecond; the flows that flood it, for a while.
fn narrow(settings: TransferSettings, qualities: &[Quality], time: u64) -> (Layer, Vec<u64>) {
    let mut line = Layer::new(3, settings);
    line.join(0, 1, RAW);
    line.join(1, 2, RAW);
    line.route();
    let flows: Vec<_> = qualities.iter().map(|quality| line.flow(0, 2, *quality)).collect();
    for flows in &flows {
        line.start(2, flows[1], Program::Sink);
        line.start(0, flows[0], Program::Source { count: u64::MAX, length: 1000, interval: 10 * US, closes: false });
    }
    let mut before = Vec::new();
    for step in 0..time / MS {
        if step == time / MS / 2 {
            before = flows.iter().map(|flows| line.tally(2, flows[1]).read).collect();
        }
        let port = line.ports[1];
        line.net.allow(1, port, Some(1));
        line.run(MS);
    }
    let read = flows.iter().map(|flows| line.tally(2, flows[1]).read);
    let read = read.zip(before).map(|(after, before)| after - before).collect();
    (line, read)
}

#[test]
fn senders_slow_down_before_queues_overflow_and_share_the_way() {
    let (mut careless, _) = narrow(plain(), &[RAW; 2], 2000 * MS);
    let (mut line, read) = narrow(caring(), &[RAW; 2], 3000 * MS);
    let (lost, kept) = (careless.transfer(1).queue_full, line.transfer(1).queue_full);
    assert!(kept * 5 < lost, "{kept} {lost} {read:?}");
    assert!(read.iter().sum::<u64>() > 20_000, "{read:?}");
    let (more, less) = (read.iter().max().unwrap(), read.iter().min().unwrap());
    assert!(less * 3 > *more, "{read:?}");
    assert!(line.transfer(0).words > 50 && careless.transfer(0).words == 0);
    assert!(line.heard.is_empty());
}

/// Each two seconds all flows get about the same, whatever they are, however many, and whenever they began.
#[test]
fn flows_share_a_way_evenly() {
    for (flows, quality, calls, apart) in [
        (3, RAW, 1, 0),
        (3, CREDIT, 4, 0),
        (3, RELIABLE, 4, 300),
        (4, CREDIT, 2, 37),
        (6, CREDIT, 4, 300),
        (6, RAW, 1, 37),
    ] {
        let mut line = Layer::new(3, caring());
        line.join(0, 1, RAW);
        line.join(1, 2, RAW);
        line.route();
        let flows: Vec<_> = (0..flows).map(|_| line.flow(0, 2, quality)).collect();
        let (mut before, mut began) = (vec![0; flows.len()], 0);
        for step in 0..7500 {
            while began < flows.len() && step >= began as u64 * apart {
                let flows = flows[began];
                line.start(2, flows[1], Program::Sink);
                line.start(
                    0,
                    flows[0],
                    Program::Source { count: u64::MAX, length: 1000, interval: 10 * US, closes: false },
                );
                began += 1;
            }
            if step % 2000 == 1499 {
                let read: Vec<u64> =
                    flows.iter().map(|flows| line.net.tally(2, flows[1]).map_or(0, |it| it.read)).collect();
                let shares: Vec<u64> = read.iter().zip(&before).map(|(read, before)| read - before).collect();
                let (more, less) = (shares.iter().max().unwrap(), shares.iter().min().unwrap());
                assert!(step < 2000 || less * 3 > more * 2, "{quality:?} {calls} {apart} {step}: {shares:?}");
                before = read;
            }
            let port = line.ports[1];
            line.net.allow(1, port, Some(calls));
            line.run(MS);
        }
    }
}

#[test]
fn the_receiver_tells_the_sender_of_marks_as_by_the_prototype() {
    let mut line = Layer::new(2, caring());
    line.join(0, 1, RAW);
    line.route();
    let (now, near) = (line.net.now(), line.lower[&(0, 1)]);
    // What comes back is read where it arrives.
    line.net.stack(0).hand(now, near, User::Control(u32::MAX));
    let flows = line.flow(0, 1, RAW);
    line.start(1, flows[1], Program::Sink);
    for mark in [[3; 12].as_slice(), &[0; 8]].concat() {
        let pci = Pci { ecn: mark, ..Pci::read(&header(name(1), 60, 105)) };
        line.inject(0, near, &[&pci.write()[..], b"data"].concat());
        line.run(5 * MS);
    }
    let told: Vec<_> = line.messages.iter().map(|(_, _, packet)| packet.clone()).collect();
    let word = |ece: u16| [&header(name(0), MAX_TTL, 0)[..], &Word::Congested(104, ece).write()].concat();
    assert_eq!(told, [3, 9, 33, 0].map(word));
    assert_eq!(line.tally(1, flows[1]).read, 20);
}

#[test]
fn what_arrives_at_a_socket_that_is_nearly_full_is_marked_where_the_layer_marks() {
    for (settings, held, dropped, mark) in [
        (caring(), 100, 0, 63),
        (caring(), 75, 0, 31),
        (caring(), 50, 0, 0),
        (caring(), 0, 7, 32),
        (plain(), 100, 7, 0),
    ] {
        let mut line = Layer::new(3, settings);
        (1..3).for_each(|node| line.join(node - 1, node, RAW));
        line.route();
        let (now, last, port) = (line.net.now(), line.lower[&(2, 1)], line.ports[1]);
        // What is passed on is read at the last node.
        line.net.stack(2).hand(now, last, User::Control(u32::MAX));
        let near = line.lower[&(0, 1)];
        line.net.stack(1).note_backlog(port, held, 100, dropped);
        let sent = Pci { ecn: 64, ..Pci::read(&header(name(2), MAX_TTL, 105)) };
        line.inject(0, near, &sent.write());
        line.run(SECOND / 10);
        let passed = |line: &Layer| line.messages.last().map(|(_, _, packet)| packet[6]);
        assert_eq!(passed(&line), Some(64 | mark), "{held} {dropped}");
        assert_eq!(line.net.stack(1).snapshot(port).layer.overflowed, u64::from(dropped));
        // As soon as it is empty there are no more.
        line.net.stack(1).note_backlog(port, 0, 100, dropped);
        line.inject(0, near, &sent.write());
        line.run(SECOND / 10);
        assert_eq!((passed(&line), line.net.stack(1).is_marked(port)), (Some(64), false));
    }
}

#[test]
fn a_word_of_congestion_slows_the_flow_that_it_names_and_no_other() {
    for (settings, slows) in [(caring(), true), (plain(), false)] {
        let mut line = Layer::new(2, settings);
        line.join(0, 1, RAW);
        line.route();
        let flows = [line.flow(0, 1, RAW), line.flow(0, 1, RAW)];
        for flows in &flows {
            line.start(1, flows[1], Program::Sink);
            line.start(
                0,
                flows[0],
                Program::Source { count: u64::MAX, length: 1000, interval: 20 * US, closes: false },
            );
        }
        line.run(300 * MS);
        let member = line.members[1];
        for _ in 0..200 {
            for eid in [104, 9999] {
                let (now, word) = (line.net.now(), Word::Congested(eid, 913).write());
                line.net.stack(1).send_pdu(now, member, name(0), 0, 0, &word);
            }
            line.run(MS);
        }
        let before = flows.map(|flows| line.tally(1, flows[1]).read);
        line.run(20 * MS);
        let [named, other] = [0, 1].map(|at| line.tally(1, flows[at][1]).read - before[at]);
        assert!(other > 900 && (named < 500) == slows, "{named} {other}");
        assert_eq!((line.transfer(0).words, line.heard.len()), (200, 0));
        assert_eq!(unknown(&mut line, 0), 200);
    }
}

#[test]
fn raw_flows_between_nodes_of_ours_lose_nothing_over_a_narrow_way() {
    let mut line = Layer::new(3, caring());
    line.join(0, 1, CREDIT);
    line.join(1, 2, CREDIT);
    line.route();
    let flows = line.flow(0, 2, CREDIT);
    line.start(2, flows[1], Program::Sink);
    line.start(0, flows[0], source(20_000, 1000));
    for _ in 0..3000 {
        let port = line.ports[1];
        line.net.allow(1, port, Some(1));
        line.run(MS);
    }
    let tally = line.tally(2, flows[1]);
    assert_eq!((tally.read, tally.disordered), (20_000, 0), "{:?}", line.transfer(1));
}

#[test]
fn packets_to_a_neighbour_of_the_prototype_keep_a_pace_and_none_is_lost() {
    let mut line = Layer::new(3, plain());
    line.join(0, 1, RAW);
    let [near, far] = line.lower_flow(1, 2, RAW);
    line.hand_over_to(1, 2, near, false);
    line.hand_over(2, 1, far);
    line.route();
    let (through, own) = (line.flow(0, 2, RAW), line.flow(1, 2, RAW));
    for (node, flows) in [(0, through), (1, own)] {
        line.start(2, flows[1], Program::Sink);
        line.start(node, flows[0], source(500, 100));
    }
    let came = |line: &Layer| line.tally(2, through[1]).read + line.tally(2, own[1]).read;
    line.run(2 * DELAY);
    let mut before = came(&line);
    for _ in 0..30 {
        line.run(MS);
        assert!(came(&line) - before <= 64 + MS / 16_000 + 1, "{} {before}", came(&line));
        before = came(&line);
    }
    assert_eq!(came(&line), 1000);
}

#[test]
fn packets_go_out_by_the_lower_flow_that_they_came_by_when_a_layer_between_says_so() {
    for (below, above) in [(RAW, RAW), (CREDIT, CREDIT), (RELIABLE, RAW), (ENCRYPTED, RELIABLE), (RAW, ENCRYPTED)] {
        // Nodes 0, 1 and 2 have node 3 as their only neighbour; in the layer above, 1 is between 0 and 2.
        let mut star = Layer::new(4, caring());
        (0..3).for_each(|node| star.join(node, 3, below));
        star.route();
        let members: Vec<_> = (0..3)
            .map(|node| {
                let member = star.net.name_member(node);
                star.net.stack(node).open_unicast(member, TransferSettings { address: name(node), ..caring() });
                member
            })
            .collect();
        for (one, other) in [(0, 1), (1, 2)] {
            let carriers = [one, other].map(|node| star.members[node]);
            let flows = star.flow_of(carriers, (one, other), above, 0, || User::Control(1));
            for (node, peer, flow) in [(one, other, flows[0]), (other, one, flows[1])] {
                let now = star.net.now();
                star.net.stack(node).hand_over(now, members[node], flow, name(peer), (1200, true));
            }
        }
        for (node, ways) in [(0, vec![(1, 1), (2, 1)]), (1, vec![(0, 0), (2, 2)]), (2, vec![(1, 1), (0, 1)])] {
            let ways: Vec<_> = ways.into_iter().map(|(to, by)| (name(to), [name(by)])).collect();
            let table = Table::new(ways.iter().map(|(to, by)| (*to, &by[..])), false);
            star.net.stack(node).route(members[node], table);
        }
        let ends = [members[0], members[2]];
        let flows = star.flow_of(ends, (0, 2), RELIABLE, 0, || User::Program(ouroboros_sim::Queue::default()));
        star.exchange((0, 2), flows, 400, 700);
        let through = star.net.stack(1).snapshot(members[1]).transfer.unwrap();
        assert!(through.forwarded >= 800, "{below:?} {above:?} {through:?}");
        assert_eq!((0..4).map(|node| star.net.stack(node).forgotten()).sum::<usize>(), 0);
    }
}

#[test]
fn a_message_by_a_flow_that_is_closing_is_lost_and_counted() {
    let mut net = Network::default();
    let node = net.add_node();
    let port = net.open_port(node, address(0), DELAY).unwrap();
    let flow = net.name_flow(node);
    let carried = setup(flow, port, 0, 0, RAW, (100, 101));
    let (carrier, user) = (Carrier::Port(address(1)), User::Control(0));
    assert!(net.add(node, Setup { carrier, user, ..carried }));
    let stack = net.stack(node);
    stack.peer_gone(port, 100, false);
    stack.send_message(0, flow, b"too late");
    let balance = stack.balance();
    assert_eq!((balance.sent, balance.dropped.get("crowded")), (1, Some(&1)));
    assert!(balance.is_even(), "{balance:?}");
}
