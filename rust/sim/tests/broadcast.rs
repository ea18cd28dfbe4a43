//! Broadcast layers over several nodes: each packet reaches every member once, whatever the connections are.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{CREDIT, DELAY, MS, Quality, RAW, SECOND, address, setup};
use ouroboros_sim::stack::{Carrier, Event, FlowId, Kind, MemberId, TransferCounters, User};
use ouroboros_sim::{Network, Program};
use ouroboros_wire::relay::{Kind as Said, Relay};

/// The longest packet that a lower flow carries.
const MOST: usize = 1400;

/// Nodes with a member each and a program that joined; or members of the prototype, which are nothing but their lower flows.
struct Hall {
    net: Network,
    ports: Vec<MemberId>,
    members: Vec<MemberId>,
    programs: Vec<Option<FlowId>>,
    lower: BTreeMap<(usize, usize), FlowId>,
    /// What programs of the prototype got.
    heard: Vec<Vec<Vec<u8>>>,
    words: Vec<(usize, Option<FlowId>, Vec<u8>)>,
    /// Packets that members of the prototype passed on; and whether they do.
    passed: usize,
    passes: bool,
    eid: u64,
}

impl Hall {
    fn new(ours: usize, foreign: usize) -> Self {
        let nodes = ours + foreign;
        let mut net = Network::default();
        let (mut ports, mut members, mut programs) = (Vec::new(), Vec::new(), Vec::new());
        for node in 0..nodes {
            net.add_node();
            ports.push(net.open_port(node, address(node), DELAY).unwrap());
            let member = net.name_member(node);
            let program = (node < ours).then(|| {
                net.stack(node).open_member(member, Kind::Broadcast(node as u64));
                let id = net.name_flow(node);
                assert!(net.add(node, setup(id, member, 0, 0, RAW, (0, 0))));
                id
            });
            members.push(member);
            programs.push(program);
        }
        let (lower, heard, words) = (BTreeMap::new(), vec![Vec::new(); nodes], Vec::new());
        Hall { net, ports, members, programs, lower, heard, words, passed: 0, passes: true, eid: 100 }
    }

    /// Connect two.
    fn join(&mut self, one: usize, other: usize) {
        let both = self.programs[one].is_some() && self.programs[other].is_some();
        self.join_by(one, other, if both { CREDIT } else { RAW });
    }

    fn join_by(&mut self, one: usize, other: usize, quality: Quality) {
        let both = self.programs[one].is_some() && self.programs[other].is_some();
        self.connect(one, other, quality, both);
    }

    /// `ours`: each takes the other for a node of ours.
    fn join_as(&mut self, one: usize, other: usize, ours: bool) {
        self.connect(one, other, RAW, ours);
    }

    fn connect(&mut self, one: usize, other: usize, quality: Quality, both: bool) {
        self.eid += 2;
        for (node, peer, side) in [(one, other, 0), (other, one, 1)] {
            let id = self.net.name_flow(node);
            let eids = if side == 0 { (self.eid, self.eid + 1) } else { (self.eid + 1, self.eid) };
            let mut setup = setup(id, self.ports[node], side, 0, quality, eids);
            (setup.carrier, setup.user) = (Carrier::Port(address(peer)), User::Control(u32::MAX));
            assert!(self.net.add(node, setup));
            self.lower.insert((node, peer), id);
            if self.programs[node].is_some() {
                let (now, member) = (self.net.now(), self.members[node]);
                self.net.stack(node).hand_over(now, member, id, 0, (MOST, both));
            }
        }
    }

    fn part(&mut self, one: usize, other: usize) {
        for (node, peer) in [(one, other), (other, one)] {
            if let Some(flow) = self.lower.remove(&(node, peer)) {
                let member = self.members[node];
                self.net.stack(node).take_back(member, flow);
                self.net.stack(node).drop_flow(flow);
            }
        }
    }

    /// It is gone without a word.
    fn crash(&mut self, node: usize) {
        self.net.crash(node);
        self.programs[node] = None;
    }

    fn say(&mut self, node: usize, packet: &[u8]) {
        match self.programs[node] {
            Some(program) => {
                assert_eq!(self.net.queue(node, program).unwrap().write(packet), Ok(true));
                self.net.stack(node);
            }
            None => self.pass_on(node, None, packet),
        }
    }

    /// As a member of the prototype does.
    fn pass_on(&mut self, node: usize, from: Option<FlowId>, packet: &[u8]) {
        let now = self.net.now();
        for (_, flow) in self.lower.iter().filter(|((at, _), flow)| *at == node && Some(**flow) != from) {
            self.passed += 1;
            self.net.stack(node).send_message(now, *flow, packet);
        }
    }

    fn run(&mut self, time: u64) {
        let until = self.net.now() + time;
        while self.net.now() < until {
            for (node, event) in self.net.run(until).1 {
                match event {
                    Event::Message(flow, packet) => {
                        assert!(packet.len() < 1400);
                        self.heard[node].push(packet.clone());
                        if self.passes {
                            self.pass_on(node, Some(flow), &packet);
                        }
                    }
                    Event::Heard(_, _, from, word) => self.words.push((node, from, word)),
                    _ => {}
                }
            }
            assert!(self.passed < 20_000, "a storm");
        }
        assert_eq!(self.net.counted().stuck, 0);
    }

    /// What a node got since this was asked for last.
    fn got(&mut self, node: usize) -> Vec<Vec<u8>> {
        let Some(program) = self.programs[node] else { return std::mem::take(&mut self.heard[node]) };
        let queue = self.net.queue(node, program).unwrap().clone();
        std::iter::from_fn(|| queue.read().unwrap()).collect()
    }

    /// That every one of those nodes got the packets of all others of them, each once, and nothing else.
    fn check(&mut self, nodes: &[usize], said: &[(usize, Vec<u8>)]) {
        for node in nodes {
            let mut got = self.got(*node);
            got.sort();
            let mut expected: Vec<_> =
                said.iter().filter(|(from, _)| from != node).map(|(_, packet)| packet.clone()).collect();
            expected.sort();
            assert_eq!(got, expected, "at {node}");
        }
    }

    /// Let each of those nodes say something.
    fn round(&mut self, nodes: &[usize], round: usize) -> Vec<(usize, Vec<u8>)> {
        let said: Vec<_> = nodes.iter().map(|node| (*node, format!("{round} of {node}").into_bytes())).collect();
        said.iter().for_each(|(node, packet)| self.say(*node, packet));
        self.run(SECOND);
        said
    }

    fn counted(&mut self, node: usize) -> TransferCounters {
        let member = self.members[node];
        self.net.stack(node).snapshot(member).transfer.unwrap()
    }
}

/// Numbers that look random.
fn mix(seed: u64) -> u64 {
    let mixed = (seed ^ seed >> 30 ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB) >> 16
}

/// Neighbours in a tree, and so many connections more, by a seed.
fn graph(nodes: usize, more: usize, seed: u64) -> BTreeSet<(usize, usize)> {
    let mut number = 0;
    let mut below = |bound: usize| {
        number += 1;
        (mix(seed << 32 | number) % bound as u64) as usize
    };
    let mut edges: BTreeSet<_> = (1..nodes).map(|node| (below(node), node)).collect();
    while edges.len() < (nodes - 1 + more).min(nodes * (nodes - 1) / 2) {
        let (one, other) = (below(nodes), below(nodes));
        if one != other {
            edges.insert((one.min(other), one.max(other)));
        }
    }
    edges
}

fn hall(nodes: usize, more: usize, seed: u64) -> (Hall, BTreeSet<(usize, usize)>) {
    let (mut hall, edges) = (Hall::new(nodes, 0), graph(nodes, more, seed));
    edges.iter().for_each(|(one, other)| hall.join(*one, *other));
    (hall, edges)
}

#[test]
fn ten_members_get_everything_once_in_whatever_way_they_are_connected() {
    for seed in 0..6 {
        for more in [0, 1, 10, 45] {
            let (mut hall, _) = hall(10, more, seed);
            let all: Vec<_> = (0..10).collect();
            for round in 0..3 {
                let said = hall.round(&all, round);
                hall.check(&all, &said);
            }
        }
    }
}

/// The nodes that can be reached from the first of those.
fn connected(nodes: &BTreeSet<usize>, edges: &BTreeSet<(usize, usize)>) -> BTreeSet<usize> {
    let mut found: BTreeSet<usize> = nodes.iter().take(1).copied().collect();
    loop {
        let more: Vec<_> = edges
            .iter()
            .flat_map(|(one, other)| [(*one, *other), (*other, *one)])
            .filter(|(from, to)| found.contains(from) && nodes.contains(to) && !found.contains(to))
            .map(|(_, to)| to)
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

#[test]
fn a_hundred_members_get_nothing_twice_while_some_die() {
    let (mut hall, edges) = hall(100, 60, 1);
    let all: Vec<_> = (0..100).collect();
    let said = hall.round(&all[..20], 0);
    hall.check(&all, &said);
    let mut alive: BTreeSet<usize> = all.iter().copied().collect();
    for round in 1..4 {
        // While packets are under way.
        let said: Vec<_> =
            alive.iter().step_by(9).map(|node| (*node, format!("{round} {node}").into_bytes())).collect();
        said.iter().for_each(|(node, packet)| hall.say(*node, packet));
        hall.run(2 * MS);
        for number in 0..5 {
            let gone = *alive.iter().nth(mix(round * 10 + number) as usize % alive.len()).unwrap();
            alive.remove(&gone);
            hall.crash(gone);
        }
        hall.run(SECOND);
        for node in &alive {
            let got = hall.got(*node);
            assert_eq!(got.iter().collect::<BTreeSet<_>>().len(), got.len(), "twice at {node}");
        }
        let rest: Vec<_> = connected(&alive, &edges).into_iter().collect();
        assert!(rest.len() > 60, "{}", rest.len());
        let said = hall.round(&rest[..5], 10 * round as usize);
        hall.check(&rest, &said);
    }
}

#[test]
fn what_is_parted_heals() {
    let mut hall = Hall::new(4, 0);
    [(0, 1), (1, 2), (2, 3), (0, 3)].into_iter().for_each(|(one, other)| hall.join(one, other));
    hall.part(0, 3);
    hall.part(1, 2);
    let said = hall.round(&[0, 1, 2, 3], 0);
    hall.check(&[0, 1], &said[..2]);
    hall.check(&[2, 3], &said[2..]);
    hall.join(1, 2);
    let said = hall.round(&[0, 1, 2, 3], 1);
    hall.check(&[0, 1, 2, 3], &said);
    hall.join(0, 3);
    let said = hall.round(&[0, 1, 2, 3], 2);
    hall.check(&[0, 1, 2, 3], &said);
}

#[test]
fn equal_packets_of_ours_are_all_delivered() {
    let (mut hall, _) = hall(3, 3, 1);
    let said: Vec<_> = (0..50).map(|number| (number % 3, b"same".to_vec())).collect();
    said.iter().for_each(|(node, packet)| hall.say(*node, packet));
    hall.run(SECOND);
    hall.check(&[0, 1, 2], &said);
}

#[test]
fn loops_with_the_prototype_make_no_storm_and_nothing_comes_twice_to_ours() {
    // Ours are 0 and 1, and the first to be connected.
    let cases: [&[(usize, usize)]; 5] = [
        &[(0, 1), (0, 2), (0, 3), (2, 3)],
        &[(0, 1), (0, 2), (1, 3), (2, 3)],
        &[(0, 1), (0, 2), (1, 2), (2, 3)],
        &[(0, 1), (0, 2), (1, 2), (1, 3), (0, 3), (2, 3)],
        &[(0, 2), (2, 1), (1, 3), (3, 0)],
    ];
    for edges in cases {
        let mut hall = Hall::new(2, 2);
        edges.iter().for_each(|(one, other)| hall.join(*one, *other));
        hall.run(SECOND);
        for round in 0..4 {
            let said = hall.round(&[0, 1, 2, 3], round);
            hall.check(&[0, 1], &said);
            for foreign in [2, 3] {
                // A member of the prototype takes what it gets for new, but it got all.
                let got: BTreeSet<_> = hall.got(foreign).into_iter().collect();
                let others = said.iter().filter(|(from, _)| *from != foreign).map(|(_, packet)| packet);
                assert!(others.into_iter().all(|packet| got.contains(packet)), "{edges:?}");
            }
        }
        assert!(hall.passed < 400, "{} packets in {edges:?}", hall.passed);
    }
}

#[test]
fn a_loop_that_is_made_while_all_talk_ends_by_itself() {
    let mut hall = Hall::new(3, 2);
    [(0, 1), (1, 2), (0, 3), (3, 4)].into_iter().for_each(|(one, other)| hall.join(one, other));
    for round in 0..20 {
        if round == 10 {
            hall.join(2, 4);
        }
        let said: Vec<_> = (0..5).map(|node| (node, format!("{round} {node}").into_bytes())).collect();
        said.iter().for_each(|(node, packet)| hall.say(*node, packet));
        hall.run(if round == 10 { 0 } else { SECOND });
    }
    for node in [0, 1, 2] {
        let got = hall.got(node);
        assert_eq!((got.len(), got.iter().collect::<BTreeSet<_>>().len()), (80, 80), "at {node}");
    }
}

#[test]
fn a_member_of_the_prototype_may_repeat_itself_where_there_is_one_way_to_such() {
    let mut hall = Hall::new(2, 2);
    [(0, 1), (1, 2), (2, 3)].into_iter().for_each(|(one, other)| hall.join(one, other));
    hall.run(SECOND);
    let said: Vec<_> = [0, 1, 2, 3, 0, 1, 2, 3].map(|node| (node, b"hello".to_vec())).to_vec();
    said.iter().for_each(|(node, packet)| hall.say(*node, packet));
    hall.run(SECOND);
    hall.check(&[0, 1, 2, 3], &said);
}

#[test]
fn long_packets_reach_only_those_that_can_take_them() {
    let mut hall = Hall::new(3, 1);
    [(0, 1), (1, 2), (2, 3)].into_iter().for_each(|(one, other)| hall.join(one, other));
    let lengths = [1380, 1381, 1399, 1400];
    lengths.iter().for_each(|length| hall.say(2, &vec![b'x'; *length]));
    hall.run(SECOND);
    let got: Vec<_> = [0, 3].iter().map(|node| hall.got(*node).iter().map(Vec::len).collect::<Vec<_>>()).collect();
    assert_eq!(got, [vec![1380], vec![1380, 1381, 1399]]);
    assert_eq!(hall.counted(2).too_long, 4);
}

#[test]
fn a_neighbour_that_takes_nothing_costs_the_others_nothing() {
    let mut hall = Hall::new(4, 0);
    [(0, 1), (1, 2), (1, 3)].into_iter().for_each(|(one, other)| hall.join(one, other));
    hall.net.freeze(2);
    let said: Vec<_> = (0..5000).map(|number| (0, format!("{number}").into_bytes())).collect();
    for chunk in said.chunks(100) {
        chunk.iter().for_each(|(node, packet)| hall.say(*node, packet));
        hall.run(5 * MS);
    }
    hall.run(SECOND);
    hall.check(&[1, 3], &said);
    assert!(hall.counted(1).queue_full > 0, "{:?}", hall.counted(1));
    hall.net.thaw(2);
    hall.run(2 * SECOND);
    let late: BTreeSet<_> = hall.got(2).into_iter().collect();
    let said = hall.round(&[0], 9);
    hall.check(&[2], &said);
    assert!(late.len() < 5000, "{}", late.len());
}

/// Let the program of a node write so many packets as fast as there is room, and wait until all are written, or so long.
fn flood(hall: &mut Hall, node: usize, count: u64, most: u64) -> u64 {
    let program = hall.programs[node].unwrap();
    assert!(hall.net.start(node, program, Program::Source { count, length: 64, interval: 0, closes: false }));
    let start = hall.net.now();
    while hall.net.tally(node, program).unwrap().written < count && hall.net.now() < start + most {
        hall.run(MS);
    }
    hall.net.tally(node, program).unwrap().written
}

const FLOOD: u64 = 60_000;

/// The reports of the second neighbour take fifty times as long.
#[test]
fn a_program_that_floods_waits_for_the_quickest_neighbour() {
    let mut hall = Hall::new(3, 0);
    [(0, 1), (0, 2)].into_iter().for_each(|(one, other)| hall.join(one, other));
    hall.net.mend(2, hall.ports[2], 50 * DELAY);
    let program = hall.programs[1].unwrap();
    assert!(hall.net.start(1, program, Program::Sink));
    assert_eq!(flood(&mut hall, 0, FLOOD, 60 * SECOND), FLOOD);
    hall.run(SECOND);
    let tally = hall.net.tally(1, program).unwrap();
    assert_eq!((tally.read, tally.disordered), (FLOOD, 0));
    let lost = hall.counted(0).queue_full;
    assert!(lost > 0 && lost < FLOOD, "{lost}");
}

/// The only neighbour stands still: it is waited for a moment, until it is clear that it says nothing.
#[test]
fn a_program_that_floods_does_not_wait_for_a_neighbour_that_is_silent() {
    let mut hall = Hall::new(2, 0);
    hall.join(0, 1);
    let said = hall.round(&[0, 1], 0);
    hall.check(&[0, 1], &said);
    hall.net.freeze(1);
    assert_eq!(flood(&mut hall, 0, FLOOD, SECOND), FLOOD);
    assert!(hall.counted(0).queue_full > FLOOD / 2, "{:?}", hall.counted(0));
    hall.net.thaw(1);
    hall.run(2 * SECOND);
    hall.got(1);
    let said = hall.round(&[0], 1);
    hall.check(&[1], &said);
}

/// Another program of the host gets all at its own speed, however slow the neighbour is.
#[test]
fn programs_of_one_host_are_not_slowed_by_a_neighbour() {
    let mut hall = Hall::new(2, 0);
    hall.join(0, 1);
    let (member, listener) = (hall.members[0], hall.net.name_flow(0));
    assert!(hall.net.add(0, setup(listener, member, 0, 0, RAW, (0, 0))));
    assert!(hall.net.start(0, listener, Program::Sink));
    hall.net.mend(1, hall.ports[1], 50 * DELAY);
    assert_eq!(flood(&mut hall, 0, FLOOD, 10 * MS), FLOOD);
    hall.run(SECOND);
    assert_eq!(hall.net.tally(0, listener).unwrap().read, FLOOD);
    assert!(hall.counted(0).queue_full > FLOOD / 2, "{:?}", hall.counted(0));
}

#[test]
fn words_go_to_the_control_side_of_the_neighbour_only() {
    let mut hall = Hall::new(3, 0);
    [(0, 1), (1, 2)].into_iter().for_each(|(one, other)| hall.join(one, other));
    let flow = hall.lower[&(0, 1)];
    hall.net.stack(0).send_message(0, flow, b"\x04leaving");
    hall.run(SECOND);
    let back = hall.lower[&(1, 0)];
    assert_eq!(hall.words, [(1, Some(back), b"leaving".to_vec())]);
    hall.check(&[0, 1, 2], &[]);
}

#[test]
fn bytes_of_a_hostile_neighbour_do_no_harm() {
    let mut hall = Hall::new(3, 1);
    [(0, 1), (1, 2), (1, 3)].into_iter().for_each(|(one, other)| hall.join(one, other));
    let flow = hall.lower[&(0, 1)];
    for seed in 0..3000_u64 {
        let length = mix(seed) as usize % 60;
        let mut bytes: Vec<u8> = (0..length as u64).map(|at| mix(seed << 8 | at) as u8).collect();
        if let Some(first) = bytes.first_mut() {
            *first %= 6;
        }
        let now = hall.net.now();
        hall.net.stack(0).send_message(now, flow, &bytes);
        hall.run(MS / 10);
    }
    hall.run(SECOND);
    [1, 2, 3].into_iter().for_each(|node| drop(hall.got(node)));
    let said = hall.round(&[1, 2], 0);
    hall.check(&[1, 2], &said);
}

/// Let the neighbour of one that is no member of ours, though it says so, send bytes.
fn lie(hall: &mut Hall, (liar, to): (usize, usize), relay: Relay, packet: &[u8]) {
    let (now, flow) = (hall.net.now(), hall.lower[&(liar, to)]);
    hall.net.stack(liar).send_message(now, flow, &[&relay.write()[..], packet].concat());
}

/// The origin that a member of a hall has now.
fn origin(hall: &mut Hall, node: usize, heard_by: usize) -> Relay {
    hall.say(node, b"who");
    hall.run(SECOND);
    let said = hall.heard[heard_by].iter().rev().find_map(|packet| Relay::read(packet)).unwrap().0;
    (0..hall.members.len()).for_each(|node| drop(hall.got(node)));
    said
}

/// A hall whose last member is a node that is none, and takes what it gets.
fn hall_with_a_liar(edges: &[(usize, usize)], liar: usize) -> Hall {
    let mut hall = Hall::new(liar, 1);
    hall.passes = false;
    edges.iter().for_each(|(one, other)| hall.join_as(*one, *other, true));
    // What they say of themselves first.
    hall.run(SECOND);
    hall
}

#[test]
fn whoever_speaks_in_the_name_of_a_member_does_not_silence_it() {
    for ahead in [1, 100, 5000, u64::MAX / 2] {
        let mut hall = hall_with_a_liar(&[(0, 1), (1, 2), (0, 2), (2, 3)], 3);
        for _ in 0..3 {
            let known = origin(&mut hall, 0, 3);
            let forged = Relay { hops: 0, number: known.number.saturating_add(ahead), ..known };
            lie(&mut hall, (3, 2), forged, b"not from 0");
            hall.run(SECOND);
            [0, 1, 2].into_iter().for_each(|node| drop(hall.got(node)));
            let said: Vec<_> = (0..3).flat_map(|round| hall.round(&[0, 1, 2], round)).collect();
            hall.check(&[0, 1, 2], &said);
        }
        assert_eq!(hall.counted(0).forged, 3, "{ahead}");
    }
}

#[test]
fn invented_origins_do_not_make_others_forgotten() {
    // What 0 says comes to 1 at once, and again by way of 2, and between the two what the liar invents.
    let mut hall = hall_with_a_liar(&[(0, 1), (1, 2), (0, 2), (1, 3)], 3);
    for round in 0..5 {
        hall.say(0, format!("{round}").as_bytes());
        hall.run(MS / 3);
        for number in 0..3000 {
            let (kind, origin) = (Said::Border, 10_000 * (round + 1) + number);
            lie(&mut hall, (3, 1), Relay { kind, hops: 250, foreign: 0, origin, number: 1 }, b"");
        }
        hall.run(SECOND);
    }
    assert_eq!([1, 2].map(|node| hall.got(node).len()), [5, 5]);
}

#[test]
fn neighbours_of_the_prototype_that_come_and_go_far_away_are_answered_now_and_then() {
    // 0 has one itself, which is node 3.
    let mut hall = Hall::new(2, 2);
    hall.passes = false;
    hall.join_as(0, 1, true);
    hall.join_as(1, 2, true);
    hall.join_as(0, 3, false);
    hall.run(SECOND);
    hall.heard[2].clear();
    for number in 0..1000 {
        let foreign = 1 - (number % 2) as u16;
        let kind = Said::Border;
        lie(&mut hall, (2, 1), Relay { kind, hops: 0, foreign, origin: 77, number: number + 1 }, b"");
        hall.run(MS);
    }
    let said = hall.heard[2].iter().filter(|packet| Relay::read(packet).is_some_and(|(it, _)| it.origin != 77)).count();
    assert!((1..=150).contains(&said), "{said}");
}

#[test]
fn no_packet_is_lost_in_the_books() {
    let (mut hall, _) = hall(10, 10, 3);
    let all: Vec<_> = (0..10).collect();
    hall.round(&all, 0);
    hall.crash(9);
    hall.round(&all[..9], 1);
    let balance = hall.net.balance();
    assert!(balance.is_even(), "{balance:?}");
}
