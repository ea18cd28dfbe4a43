//! Flows over ports and layers, in virtual time.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use ouroboros_sim::stack::link::{Chance, Settings};
use ouroboros_sim::stack::ring::{End, Flags};
use ouroboros_sim::stack::{Carrier, DEPTH, How, Kind, MANAGEMENT, Setup, Snapshot, User, Where};
use ouroboros_sim::{Network, Program, Queue};
use ouroboros_wire::management::cookie;

const PACKETS: u64 = 2000;
const ALL: [Quality; 5] = [RAW, CREDIT, RELIABLE, ENCRYPTED, SEALED];
/// Those that lose nothing by themselves, however much is written.
const SAFE: [Quality; 4] = [CREDIT, RELIABLE, ENCRYPTED, SEALED];

/// Packets through a port that takes 0 to 3 calls in each step. All arrive.
fn through_a_full_port(lower: &[Quality], top: Quality, length: usize) -> Way {
    let mut way = Way::new(lower, top);
    way.start(0, source(PACKETS, length));
    way.start(1, Program::Sink);
    for step in 0u64.. {
        assert!(step < 100_000, "{:?} {:?}", way.tally(0), way.tally(1));
        let port = way.ports[0];
        way.net.allow(0, port, Some(step * step % 7 % 4));
        way.run(50 * US);
        if way.tally(1).read == PACKETS {
            break;
        }
    }
    assert_eq!(way.tally(1).disordered, 0);
    assert_eq!(way.net.counted().stuck, 0);
    way
}

#[test]
fn frcp_sends_nothing_again_because_the_port_is_full() {
    let mut way = through_a_full_port(&[], RELIABLE, 1200);
    let stats = way.counted(0, 0).flows[0].1.1.unwrap();
    assert_eq!((stats.retransmitted, stats.lost), (0, 0), "{stats:?}");
}

#[test]
fn a_raw_flow_loses_nothing_when_the_port_is_full() {
    for quality in [RAW, CREDIT, ENCRYPTED] {
        let mut way = through_a_full_port(&[], quality, 1200);
        assert_eq!(way.counted(0, 0).flows[0].1.0.sent, PACKETS, "{quality:?}");
    }
}

#[test]
fn layers_lose_nothing_when_the_port_below_them_is_full() {
    for lower in ALL {
        for top in [RAW, RELIABLE] {
            through_a_full_port(&[lower], top, 1000);
        }
    }
}

#[test]
fn keepalives_are_not_counted_in_reports() {
    let alive = Quality { timeout: 400, ..CREDIT };
    let mut way = Way::new(&[], alive);
    way.start(0, Program::Source { count: 15, length: 10, interval: 0, closes: false });
    way.start(1, Program::Sink);
    // A hundred keepalives, and a packet less than a report is for.
    way.run(10 * SECOND + 50 * MS);
    let counters = way.counted(0, 0).flows[0].1.0;
    assert!(counters.sent > 15 + 90, "{counters:?}");
    // None of what came back is a report.
    assert_eq!(counters.received, way.counted(1, 0).flows[0].1.0.sent);
    assert_eq!(way.counted(0, 0).layer.received, counters.received);
    way.start(0, source(1, 10));
    way.run(50 * MS);
    let (layer, flow) = (way.counted(0, 0).layer, way.counted(0, 0).flows[0].1.0);
    assert_eq!(layer.received, flow.received + 1);
    assert_eq!(layer.unknown + layer.wrong_source, 0);
}

#[test]
fn one_layer_over_a_port_carries_everything_both_ways() {
    for lower in ALL {
        for top in SAFE {
            Way::new(&[lower], top).exchange(2000, 900);
        }
    }
}

#[test]
fn layers_over_layers_carry_everything_both_ways() {
    for below in [RAW, RELIABLE, ENCRYPTED] {
        for above in [RAW, CREDIT, SEALED] {
            for top in [CREDIT, RELIABLE, SEALED] {
                Way::new(&[below, above], top).exchange(1000, 700);
            }
        }
    }
    Way::new(&[CREDIT, RELIABLE, ENCRYPTED], SEALED).exchange(1000, 700);
}

#[test]
fn as_many_layers_as_there_may_be_carry_everything_both_ways() {
    Way::new(&[RAW; DEPTH], CREDIT).exchange(500, 100);
    Way::new(&[RAW; DEPTH], RELIABLE).exchange(500, 100);
}

#[test]
fn messages_in_fragments_go_through_layers() {
    for lower in [&[][..], &[RAW], &[CREDIT, ENCRYPTED], &[RELIABLE, RAW]] {
        Way::new(lower, RELIABLE).exchange(20, 100_000);
    }
}

#[test]
fn a_bad_link_takes_nothing_from_reliable_flows() {
    let settings = Settings {
        loss: Chance::new(0.02).unwrap(),
        duplicate: Chance::new(0.05).unwrap(),
        reorder: Chance::new(0.05).unwrap(),
        delay: 5 * MS,
        jitter: MS,
        ..Settings::default()
    };
    for lower in [&[][..], &[RAW], &[ENCRYPTED, RAW], &[RELIABLE], &[RAW, SEALED]] {
        for top in [RELIABLE, SEALED] {
            let mut way = Way::new(lower, top);
            for node in [0, 1] {
                let port = way.ports[node];
                way.net.impair(node, port, settings, 7 + node as u64);
            }
            way.exchange(500, 700);
            let port = way.ports[0];
            let shaken = way.net.link_counters(0, port);
            assert!(shaken.lost > 0 && shaken.duplicated > 0 && shaken.reordered > 0, "{shaken:?}");
        }
    }
}

/// Many packets are repaired together in vain where acknowledgements are lost, too: that is no short path.
#[test]
fn packets_lost_at_random_do_not_slow_a_reliable_flow_down() {
    for loss in [0.01, 0.03, 0.05] {
        let mut way = Way::new(&[], RELIABLE);
        for node in [0, 1] {
            let port = way.ports[node];
            let settings = Settings { loss: Chance::new(loss).unwrap(), delay: 5 * MS, ..Settings::default() };
            way.net.impair(node, port, settings, 7 + node as u64);
        }
        way.start(0, source(u64::MAX, 1400));
        way.start(1, Program::Sink);
        way.run(SECOND);
        let before = way.tally(1).bytes;
        way.run(SECOND / 2);
        let rate = (way.tally(1).bytes - before) * 16;
        assert!(rate > 300_000_000, "{loss}: {rate} bit/s");
    }
}

/// Its key changes every 4096 packets. Fewer could be under way at once than two keys are for, and those are rejected.
const CHANGING: Quality = Quality { rotation_bit: 12, ..ENCRYPTED };

#[test]
fn a_key_that_changes_below_layers_costs_no_packet() {
    for lower in [&[CHANGING][..], &[CHANGING, RAW], &[RAW, CHANGING], &[RELIABLE, CHANGING], &[CHANGING, CHANGING]] {
        for top in [CREDIT, RELIABLE, Quality { reliable: true, ..CHANGING }] {
            let mut way = Way::new(lower, top);
            way.exchange(20_000, 700);
            for (level, quality) in lower.iter().chain([&top]).enumerate().filter(|(_, quality)| quality.encrypted) {
                for node in [0, 1] {
                    let counters = way.counted(node, level).flows[0].1.0;
                    assert!(counters.sent + counters.received > 9 << quality.rotation_bit, "{counters:?}");
                    assert_eq!((counters.rejected, counters.unsealed), (0, 0), "{lower:?} {top:?}");
                }
            }
        }
    }
}

#[test]
fn keys_change_below_layers_though_packets_are_lost_and_overtaken() {
    let settings = Settings {
        loss: Chance::new(0.02).unwrap(),
        reorder: Chance::new(0.05).unwrap(),
        delay: MS,
        jitter: MS,
        ..Settings::default()
    };
    for lower in [&[CHANGING][..], &[CHANGING, RAW], &[RAW, CHANGING]] {
        let mut way = Way::new(lower, RELIABLE);
        for node in [0, 1] {
            let port = way.ports[node];
            way.net.impair(node, port, settings, 7 + node as u64);
        }
        way.exchange(20_000, 700);
    }
}

#[test]
fn flows_over_a_blocked_port_wait_and_go_on() {
    for lower in [&[][..], &[RAW], &[CREDIT, RAW], &[RELIABLE], &[ENCRYPTED, CREDIT]] {
        for top in [RAW, RELIABLE] {
            let mut way = Way::new(lower, top);
            let port = way.ports[0];
            way.net.allow(0, port, Some(0));
            way.start(0, source(PACKETS, 800));
            way.start(1, Program::Sink);
            way.run(SECOND / 2);
            assert_eq!(way.tally(1).read, 0);
            way.net.allow(0, port, None);
            way.run(10 * SECOND);
            assert_eq!((way.tally(1).read, way.tally(1).disordered), (PACKETS, 0), "{lower:?} {top:?}");
            assert_eq!(way.net.counted().stuck, 0, "{lower:?} {top:?}");
        }
    }
}

#[test]
fn a_flow_whose_lower_flow_has_no_credit_goes_on_after_a_while_though_nothing_comes_back() {
    let mut way = Way::new(&[CREDIT], RAW);
    let port = way.ports[0];
    way.net.impair(0, port, Settings { partition: true, ..Settings::default() }, 0);
    way.start(0, source(500, 100));
    way.run(SECOND);
    assert_eq!(way.counted(0, 0).flows[0].1.0.sent, 500);
    assert_eq!(way.net.counted().stuck, 0);
}

/// The flow of a member over its first flow below stands still, and the one over the second goes on.
#[test]
fn a_blocked_port_holds_only_what_goes_over_it() {
    let mut way = Way::new(&[RAW], RAW);
    let others = [0, 1].map(|node| way.net.open_port(node, ([10, 0, 1, node as u8 + 1], 1).into(), DELAY).unwrap());
    let members = way.members[1];
    let mut flows = Vec::new();
    for node in [0, 1] {
        let (lower, upper) = (way.net.name_flow(node), way.net.name_flow(node));
        let eids = if node == 0 { (50, 51) } else { (51, 50) };
        let mut below = setup(lower, others[node], node, 0, RAW, eids);
        below.carrier = Carrier::Port(([10, 0, 1, 2 - node as u8], 1).into());
        below.user = ouroboros_sim::stack::User::Transfer(members[node]);
        let above = Setup { carrier: Carrier::Transfer(lower), ..setup(upper, members[node], node, 1, RAW, eids) };
        assert!(way.net.add(node, below) && way.net.add(node, above));
        flows.push(upper);
    }
    let port = way.ports[0];
    way.net.allow(0, port, Some(0));
    way.start(0, source(PACKETS, 800));
    way.start(1, Program::Sink);
    way.net.start(0, flows[0], source(PACKETS, 800));
    way.net.start(1, flows[1], Program::Sink);
    way.run(SECOND);
    assert_eq!((way.tally(1).read, way.net.tally(1, flows[1]).unwrap().read), (0, PACKETS));
    way.net.allow(0, port, None);
    way.run(SECOND);
    assert_eq!(way.tally(1).read, PACKETS);
}

#[test]
fn a_flow_ends_once_all_that_was_written_has_arrived() {
    for lower in [&[][..], &[RAW], &[RELIABLE, RAW]] {
        for top in SAFE {
            let mut way = Way::new(lower, top);
            way.start(0, Program::Source { count: 300, length: 500, interval: 0, closes: true });
            way.start(1, Program::Sink);
            way.run(10 * SECOND);
            assert_eq!(way.tally(1).read, 300);
            let (member, eid) = (way.members.last().unwrap()[1], 101 + 2 * lower.len() as u64);
            assert_eq!(way.told.ends, [(0, way.top()[0], How::Closed)], "{lower:?} {top:?}");
            way.net.stack(1).peer_gone(member, eid, false);
            way.run(SECOND);
            assert_eq!(way.told.ends[1..], [(1, way.top()[1], How::Gone)]);
            assert_eq!(way.tally(1).end, Some(End::Closed));
        }
    }
}

#[test]
fn what_is_over_a_flow_that_ends_is_held_and_nothing_breaks() {
    for lower in ALL {
        let mut way = Way::new(&[lower, RAW], RELIABLE);
        way.start(0, source(PACKETS * 100, 700));
        way.start(1, Program::Sink);
        way.run(20 * MS);
        let lowest = way.flows[0];
        way.net.stack(0).drop_flow(lowest[0]);
        way.run(SECOND);
        assert_eq!(way.told.ends, [(0, lowest[0], How::Closed)]);
        let read = way.tally(1).read;
        way.run(SECOND);
        assert_eq!(way.tally(1).read, read);
        // FRCP gives up, and the program is told.
        way.run(130 * SECOND);
        assert!(way.told.ends.contains(&(0, way.top()[0], How::Broken)), "{lower:?}");
        assert_eq!(way.tally(0).end, Some(End::Died));
        assert_eq!(way.net.counted().stuck, 0);
    }
}

#[test]
fn a_peer_that_is_silent_is_missed_in_time_and_not_before() {
    for lower in [&[][..], &[RAW]] {
        let mut way = Way::new(lower, Quality { timeout: 1000, ..RAW });
        way.start(0, Program::Sink);
        way.start(1, Program::Sink);
        way.run(60 * SECOND);
        assert_eq!(way.told.ends, []);
        let port = way.ports[0];
        way.net.impair(0, port, Settings { partition: true, ..Settings::default() }, 1);
        way.run(500 * MS);
        assert_eq!(way.told.ends, []);
        way.run(SECOND);
        assert_eq!(way.told.ends, [(1, way.top()[1], How::Silent)]);
    }
}

/// The two ends of a loop in one node.
fn looped(net: &mut Network, kind: Kind, quality: Quality) -> [ouroboros_sim::stack::FlowId; 2] {
    let node = net.add_node();
    let member = net.name_member(node);
    net.stack(node).open_member(member, kind);
    let ids = [net.name_flow(node), net.name_flow(node)];
    for side in [0, 1] {
        let mut end = setup(ids[side], member, side, 0, quality, (0, 0));
        end.carrier = Carrier::Loop(ids[1 - side]);
        assert!(net.add(node, end));
    }
    ids
}

#[test]
fn a_loop_carries_everything_both_ways() {
    for quality in ALL {
        let mut net = Network::default();
        let [near, far] = looped(&mut net, Kind::Local, quality);
        net.start(0, near, source(2000, 1000));
        net.start(0, far, Program::Echo);
        run(&mut net, 10 * SECOND, &mut Told::default());
        let tallies = [near, far].map(|flow| net.tally(0, flow).unwrap());
        assert_eq!(tallies.map(|tally| (tally.read, tally.disordered)), [(2000, 0); 2], "{quality:?}");
        assert_eq!(net.counted().stuck, 0);
    }
}

#[test]
fn a_reliable_loop_waits_for_a_slow_reader_and_loses_nothing() {
    let mut net = Network::default();
    let [near, far] = looped(&mut net, Kind::Local, RELIABLE);
    net.start(0, near, source(20_000, 1000));
    let mut told = Told::default();
    run(&mut net, SECOND, &mut told);
    // Rings, windows and inboxes are full.
    assert!(net.tally(0, near).unwrap().written < 15_000);
    let queue = net.queue(0, far).unwrap().clone();
    let mut read = 0;
    for _ in 0..20_000 {
        while let Ok(Some(_)) = queue.read() {
            read += 1;
        }
        if read == 20_000 {
            break;
        }
        net.stack(0);
        run(&mut net, MS, &mut told);
    }
    assert_eq!((read, net.tally(0, near).unwrap().written), (20_000, 20_000));
}

#[test]
fn a_link_that_doubles_brings_no_more_than_there_is_room_for() {
    const SENT: u64 = 40_000;
    let mut net = Network::default();
    let [near, far] = looped(&mut net, Kind::Local, RAW);
    let member = net.stack(0).members()[0];
    net.stack(0).impair(member, Settings { duplicate: Chance::new(1.0).unwrap(), ..Settings::default() }, 1);
    net.start(0, near, source(SENT, 16));
    net.start(0, far, Program::Sink);
    run(&mut net, SECOND, &mut Told::default());
    let Snapshot { layer, flows, .. } = net.stack(0).snapshot(member);
    // The ring of the reader would have taken all of them.
    assert!(flows.iter().all(|(_, (counters, _))| counters.overrun == 0), "{flows:?}");
    assert!(layer.lost > 0, "{layer:?}");
    assert_eq!(layer.delivered + layer.lost, 2 * SENT);
    assert_eq!((net.tally(0, near).unwrap().written, net.tally(0, far).unwrap().read), (SENT, layer.delivered));
}

#[test]
fn room_that_is_asked_for_is_given_back_before_it_is_asked_for_again() {
    // A raw flow asks for it to tell its peer, whose packets fill more than half of the ring.
    let mut way = Way::new(&[], CREDIT);
    way.start(0, source(10 * PACKETS, 1000));
    way.run(SECOND);
    let [_, far] = way.top();
    let queue = way.net.queue(1, far).unwrap().clone();
    let mut read = 0;
    while read < 10 * PACKETS {
        // Less than half becomes free at a time.
        for _ in 0..100 {
            read += u64::from(queue.read().unwrap().is_some());
        }
        way.net.stack(1);
        way.run(MS);
    }
    // A reliable one for each message that does not fit, also if it does so a moment later.
    let mut way = Way::new(&[], RELIABLE);
    let [_, far] = way.top();
    let queue = way.net.queue(1, far).unwrap().clone();
    way.start(0, source(PACKETS, 1000));
    way.start(1, Program::Sink);
    for times in 0..100 {
        queue.be_late(times);
        way.run(100 * US);
    }
    way.run(SECOND);
    assert_eq!((way.tally(1).read, way.tally(1).disordered), (PACKETS, 0));
    assert_eq!(way.net.counted().stuck, 0);
}

#[test]
fn flags_of_a_program_are_seen_at_the_other_end_of_a_loop() {
    let mut net = Network::default();
    let [near, far] = looped(&mut net, Kind::Local, RAW);
    let queues = [near, far].map(|flow| net.queue(0, flow).unwrap().clone());
    let settle = |net: &mut Network| {
        net.stack(0);
        run(net, MS, &mut Told::default());
    };
    queues[0].set(Flags { refuses: true, down: false });
    settle(&mut net);
    assert_eq!(queues[1].write(b"no"), Err(End::Refused));
    assert_eq!(queues[0].write(b"yes"), Ok(true));
    settle(&mut net);
    queues[0].set(Flags { down: true, refuses: false });
    settle(&mut net);
    assert_eq!(queues[1].write(b"no"), Err(End::Down));
    queues[0].set(Flags::default());
    settle(&mut net);
    assert_eq!(queues[1].read(), Ok(Some(b"yes".to_vec())));
    assert_eq!(queues[1].write(b"again"), Ok(true));
    settle(&mut net);
    assert_eq!(queues[0].read(), Ok(Some(b"again".to_vec())));
}

#[test]
fn a_flag_comes_behind_what_was_written_before_it() {
    let mut net = Network::default();
    let [near, far] = looped(&mut net, Kind::Local, RAW);
    let queues = [near, far].map(|flow| net.queue(0, flow).unwrap().clone());
    (0..1000u32).for_each(|number| assert_eq!(queues[0].write(&number.to_be_bytes()), Ok(true)));
    queues[0].set(Flags { down: true, refuses: false });
    net.stack(0);
    run(&mut net, SECOND, &mut Told::default());
    assert_eq!(queues[1].write(b"no"), Err(End::Down));
    queues[0].set(Flags::default());
    net.stack(0);
    run(&mut net, SECOND, &mut Told::default());
    (0..1000u32).for_each(|number| assert_eq!(queues[1].read(), Ok(Some(number.to_be_bytes().to_vec()))));
}

#[test]
fn a_peer_within_the_node_that_was_silent_is_heard_again() {
    let mut net = Network::default();
    let node = net.add_node();
    let members = [(); 3].map(|()| net.name_member(node));
    let [local, above @ ..] = members;
    net.stack(node).open_member(local, Kind::Local);
    above.iter().for_each(|member| net.stack(node).open_member(*member, Kind::Transfer));
    net.stack(node).impair(local, Settings::default(), 1);
    let ids = [net.name_flow(node), net.name_flow(node)];
    for side in [0, 1] {
        let mut end = setup(ids[side], local, side, 0, Quality { timeout: 1000, ..RELIABLE }, (0, 0));
        (end.carrier, end.user) = (Carrier::Loop(ids[1 - side]), User::Transfer(above[side]));
        assert!(net.add(node, end));
    }
    let mut told = Told::default();
    run(&mut net, 5 * SECOND, &mut told);
    assert_eq!(told.others, [""; 0]);
    net.stack(node).impair(local, Settings { partition: true, ..Settings::default() }, 1);
    run(&mut net, 5 * SECOND, &mut told);
    assert_eq!(told.others.len(), 2, "{told:?}");
    net.stack(node).impair(local, Settings::default(), 1);
    run(&mut net, 5 * SECOND, &mut told);
    let back = told.others.iter().filter(|text| text.contains("true")).count();
    assert_eq!((told.others.len(), back), (4, 2), "{told:?}");
}

#[test]
fn keepalives_and_words_of_control_find_their_way_through_a_reliable_flow_that_is_full() {
    let mut way = Way::new(&[RELIABLE], RAW);
    let idle = way.flow_beside(Quality { timeout: 1000, ..RAW });
    let port = way.ports[0];
    way.net.impair(0, port, Settings { rate: 4_000_000, ..Settings::default() }, 1);
    way.start(0, source(1_000_000, 1000));
    way.start(1, Program::Sink);
    way.run(5 * SECOND);
    let (now, member, lower) = (way.net.now(), way.members[1][0], way.flows[0][0]);
    for _ in 0..100 {
        way.net.stack(0).say(now, member, Where::Flow(lower), &[0; 47]);
    }
    way.run(20 * SECOND);
    assert_eq!(way.told.ends, [], "{idle:?}");
    assert_eq!(way.told.datagrams.len(), 100);
    assert!(way.tally(1).read > 1000);
}

#[test]
fn a_peer_with_a_grace_is_dropped_after_it_or_told_of_when_it_is_heard() {
    for (timeout, speaks) in [(0, false), (600_000, false), (60_000, true)] {
        let mut net = Network::default();
        let (node, stranger) = (net.add_node(), net.add_node());
        let [port, theirs] = [node, stranger].map(|at| net.open_port(at, address(at), DELAY).unwrap());
        let (id, mut told) = (net.name_flow(node), Told::default());
        let carrier = Carrier::Port(address(stranger));
        let flow = setup(id, port, 1, 0, Quality { timeout, ..RAW }, (100, 101));
        assert!(net.add(node, Setup { carrier, grace: 2000, ..flow }));
        run(&mut net, SECOND, &mut told);
        if speaks {
            // A sign of life. What comes from elsewhere, or for another flow, is none.
            let now = net.now();
            net.stack(stranger).say(now, theirs, Where::Address(address(node)), &100u32.to_be_bytes());
        }
        run(&mut net, 50 * SECOND, &mut told);
        let (ends, heard) = if speaks { (vec![], 1) } else { (vec![(node, id, How::Silent)], 0) };
        assert_eq!((&told.ends, told.others.len()), (&ends, heard), "{:?}", told.others);
    }
}

/// A request of a node of ours, with a cookie.
fn request(with: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 99];
    bytes[4..8].copy_from_slice(&7u32.to_be_bytes());
    bytes[44] = 1;
    bytes[98] = 28;
    bytes.extend([&b"pyO7\x01\x40"[..], &[0; 22]].concat());
    let proof = u64::from_be_bytes(with.try_into().unwrap()) ^ 1 ^ cookie(&bytes, 1);
    bytes[8..16].copy_from_slice(&proof.to_be_bytes());
    bytes
}

#[test]
fn a_guarded_port_lets_a_request_in_when_it_comes_again_and_its_answer_is_shorter() {
    let mut net = Network::default();
    let nodes = [net.add_node(), net.add_node()];
    let ports = nodes.map(|at| net.open_port(at, address(at), DELAY).unwrap());
    net.stack(1).guard(ports[1], &[7; 32]);
    let mut ask = |cookie: &[u8], told: &mut Told| {
        let now = net.now();
        net.stack(0).say(now, ports[0], Where::Address(address(1)), &request(cookie));
        run(&mut net, SECOND, told);
        std::mem::take(&mut told.datagrams)
    };
    let mut told = Told::default();
    let (node, retry) = ask(&[0; 8], &mut told).pop().unwrap();
    assert_eq!(node, 0);
    assert!(retry.len() < request(&[0; 8]).len());
    assert_eq!(ask(&retry[8..16], &mut told), [(1, request(&retry[8..16]))]);
    assert_eq!(ask(&[1; 8], &mut told).first().map(|(node, _)| *node), Some(0));
    let counted = net.stack(1).snapshot(ports[1]).layer;
    assert_eq!((counted.received, counted.challenged, counted.management), (3, 2, 1));
}

#[test]
fn what_one_flow_of_a_broadcast_member_sends_the_others_get() {
    let mut net = Network::default();
    let node = net.add_node();
    let member = net.name_member(node);
    net.stack(node).open_member(member, Kind::Broadcast(1));
    let flows: Vec<_> = (0..5).map(|_| net.name_flow(node)).collect();
    flows.iter().for_each(|id| assert!(net.add(node, setup(*id, member, 0, 0, RAW, (0, 0)))));
    net.start(node, flows[0], source(100, 50));
    flows[1..].iter().for_each(|id| assert!(net.start(node, *id, Program::Sink)));
    run(&mut net, SECOND, &mut Told::default());
    let read: Vec<_> = flows.iter().map(|id| net.tally(node, *id).unwrap().read).collect();
    assert_eq!(read, [0, 100, 100, 100, 100]);
}

#[test]
fn management_datagrams_reach_the_member_above_any_flow() {
    for lower in ALL {
        let mut way = Way::new(&[lower, RAW], RAW);
        let datagram = [[0; 4].as_slice(), &[1; 200]].concat();
        let (member, flow) = (way.members[2][0], way.flows[1][0]);
        way.net.stack(0).say(0, member, Where::Flow(flow), &datagram);
        let port = way.ports[0];
        let now = way.net.now();
        way.net.stack(0).say(now, port, Where::Address(address(1)), &vec![0; MANAGEMENT + 1]);
        way.run(SECOND);
        assert_eq!(way.told.datagrams, [(1, datagram)], "{lower:?}");
        assert_eq!(way.counted(1, 0).layer.refused, 1);
    }
}

#[test]
fn run_comes_back_at_the_first_instant_with_news() {
    let mut way = Way::new(&[], CREDIT);
    way.start(0, source(100_000, 100));
    way.start(1, Program::Sink);
    let port = way.ports[0];
    way.net.stack(0).say(0, port, Where::Address(address(1)), &[0; 100]);
    let (at, news) = way.net.run(SECOND);
    assert_eq!((at, news.len()), (DELAY, 1));
    let (at, news) = way.net.run(SECOND);
    assert_eq!((at, news.len()), (SECOND, 0));
    assert_eq!(way.tally(1).read, 100_000);
}

#[test]
fn run_comes_back_for_a_program_that_is_watched() {
    let mut way = Way::new(&[], RAW);
    let [near, far] = way.top();
    way.net.watch(1, far);
    let queue: Queue = way.net.queue(0, near).unwrap().clone();
    // That it has its flow.
    assert_eq!(way.net.run(SECOND).0, 0);
    let far = way.net.queue(1, far).unwrap().clone();
    assert_eq!(far.read(), Ok(None));
    queue.write(b"hello").unwrap();
    way.net.stack(0);
    assert_eq!(way.net.run(SECOND).0, DELAY);
    assert_eq!(far.read(), Ok(Some(b"hello".to_vec())));
}

/// All that can be seen of a run.
fn trace(seed: u64) -> String {
    let mut way = Way::new(&[CREDIT, RAW], RELIABLE);
    for node in [0, 1] {
        let settings = Settings { loss: Chance::new(0.1).unwrap(), jitter: 3 * MS, ..Settings::default() };
        let port = way.ports[node];
        way.net.impair(node, port, settings, seed);
    }
    way.start(0, source(300, 1000));
    way.start(1, Program::Echo);
    let mut trace = String::new();
    for _ in 0..100 {
        way.run(100 * MS);
        let levels = [0, 1].map(|node| [0, 1, 2].map(|level| way.counted(node, level)));
        trace += &format!("{:?} {levels:?} {:?}\n", way.net.next(), way.net.counted());
    }
    trace
}

#[test]
fn the_same_calls_have_the_same_result() {
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

#[test]
fn what_arrives_at_a_node_that_stands_still_waits_until_it_goes_on() {
    for quality in [RAW, RELIABLE] {
        let mut way = Way::new(&[], quality);
        way.start(1, Program::Sink);
        way.net.freeze(1);
        way.start(0, source(50, 100));
        way.run(SECOND);
        assert_eq!(way.tally(1).read, 0, "{quality:?}");
        let balance = way.net.balance();
        assert!(balance.queued > 0, "{balance:?}");
        way.net.thaw(1);
        way.run(5 * SECOND);
        assert_eq!((way.tally(1).read, way.tally(1).disordered), (50, 0), "{quality:?}");
        assert_eq!((way.net.counted().stuck, way.net.counted().astray), (0, 0));
    }
}

#[test]
fn a_node_that_crashed_says_nothing_and_its_address_is_free() {
    let mut way = Way::new(&[], RAW);
    way.start(1, Program::Sink);
    way.start(0, Program::Source { count: 100, length: 100, interval: MS, closes: false });
    way.run(20 * MS);
    let read = way.tally(1).read;
    way.net.crash(1);
    way.run(SECOND);
    assert!(read > 0 && way.tally(1).read == read);
    assert!(way.net.counted().astray > 0);
    let again = way.net.add_node();
    assert!(way.net.open_port(again, address(1), MS).is_some());
    let balance = way.net.balance();
    let dropped: u64 = balance.dropped.values().sum();
    assert_eq!(balance.sent + balance.duplicated, balance.received + balance.queued + dropped, "{balance:?}");
}

#[test]
fn nothing_gets_from_a_node_to_one_that_it_is_severed_from() {
    let mut way = Way::new(&[], RAW);
    way.start(1, Program::Sink);
    way.start(0, Program::Source { count: 100, length: 100, interval: MS, closes: false });
    way.run(20 * MS);
    way.net.sever(1, 0, true);
    way.run(US);
    let read = way.tally(1).read;
    way.run(50 * MS);
    assert!(read > 0 && way.tally(1).read == read);
    way.net.sever(0, 1, false);
    way.run(SECOND);
    assert!(way.tally(1).read > read);
    assert_eq!(way.net.counted().lost, 100 - way.tally(1).read);
    let balance = way.net.balance();
    let dropped: u64 = balance.dropped.values().sum();
    assert_eq!(balance.sent + balance.duplicated, balance.received + balance.queued + dropped, "{balance:?}");
}

#[test]
fn a_bad_link_delays_packets_of_layers_above_as_long_as_it_says() {
    for lower in [RAW, CREDIT, RELIABLE, ENCRYPTED] {
        let mut way = Way::new(&[lower], RAW);
        for node in [0, 1] {
            let port = way.ports[node];
            let settings = Settings { delay: 20 * MS, ..Settings::default() };
            way.net.stack(node).impair(port, settings, 1);
        }
        way.start(1, Program::Echo);
        way.start(0, Program::Source { count: 5, length: 100, interval: 100 * MS, closes: false });
        for round in 1..=5 {
            // 21 ms each way, and each program has to be woken.
            way.run(43 * MS);
            assert_eq!(way.tally(0).read, round, "{lower:?}");
            way.run(57 * MS);
        }
    }
}

/// Flows whose programs write much and do not read keep what one account has, and each its least beside that.
#[test]
fn flows_that_share_memory_are_slowed_and_not_ended_and_others_have_theirs() {
    const FLOWS: usize = 12;
    // A ring holds half of it.
    const COUNT: u64 = 4000;
    let paid = Quality { budget: 2 << 20, ..RELIABLE };
    let mut way = Way::new(&[], paid);
    let flows: Vec<_> = (0..FLOWS).map(|_| way.flow_beside(paid)).collect();
    for flow in &flows {
        assert!(way.net.start(0, flow[0], source(COUNT, 1000)));
    }
    way.run(300 * SECOND);
    for node in [0, 1] {
        let held = way.net.stack(node).held();
        // And what the last one took in a turn.
        assert!(held.iter().all(|(key, held)| *key == 7 && *held < (2 << 20) + (600 << 10)), "{held:?}");
    }
    assert!(way.net.stack(0).held()[0].1 > 1 << 20, "{:?}", way.net.stack(0).held());
    // Short of memory as they are, another goes on, and one that has its own as fast as ever.
    way.exchange(500, 1000);
    let free = way.flow_beside(RELIABLE);
    assert!(way.net.start(0, free[0], source(10_000, 1000)));
    assert!(way.net.start(1, free[1], Program::Sink));
    way.run(2 * SECOND);
    assert_eq!(way.net.tally(1, free[1]).unwrap().read, 10_000);
    // Nobody was ended, and when they are read, all arrives.
    for flow in &flows {
        assert!(way.net.start(1, flow[1], Program::Sink));
    }
    way.run(60 * SECOND);
    assert!(flows.iter().all(|flow| way.net.tally(1, flow[1]).unwrap().read == COUNT));
    assert_eq!(way.told.ends, []);
    assert!(way.net.stack(0).held()[0].1 < 100, "{:?}", way.net.stack(0).held());
}
