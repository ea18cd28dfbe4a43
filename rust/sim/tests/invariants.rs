//! Any layers over any ports, under any commands: nothing waits that could go on, and each packet is accounted for.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::*;
use ouroboros_sim::stack::link::{Chance, Settings};
use ouroboros_sim::stack::{
    Board, Carrier, Counted, Event, FlowId, Kind, LayerCounters, MemberId, Run, Snapshot, Source, User, Where,
    each_of_flow,
};
use ouroboros_sim::{Network, Program};
use proptest::prelude::*;

const LEVELS: usize = 3;

/// A flow between two nodes. `level`: layers below, if there are flows for one; `below` and `member` choose among them.
#[derive(Debug, Clone)]
struct Plan {
    nodes: (usize, usize),
    level: usize,
    below: usize,
    member: bool,
    quality: Quality,
}

#[derive(Debug, Clone)]
enum Step {
    Start(usize, usize, Program),
    Allow(usize, Option<u64>),
    Impair(usize, Settings, u64),
    Drop(usize, usize),
    LetGo(usize, usize, bool),
    End(usize, usize),
    Gone(usize, usize, bool),
    Say(usize, usize, Vec<u8>),
    Garbage(usize, usize, Vec<u8>, usize),
    Close(usize, usize),
    Run(u64),
}

fn quality() -> impl Strategy<Value = Quality> {
    let timeout = prop_oneof![Just(0), Just(1000u32)];
    (any::<[bool; 4]>(), timeout).prop_map(|([reliable, encrypted, crc, credit], timeout)| Quality {
        reliable,
        encrypted,
        crc,
        credit,
        timeout,
        rotation_bit: 20,
        budget: 0,
    })
}

fn plan() -> impl Strategy<Value = Plan> {
    let nodes = prop_oneof![3 => Just((0, 1)), 1 => Just((1, 2)), 1 => Just((2, 0))];
    (nodes, 0..LEVELS, 0..64usize, prop::bool::weighted(0.7), quality())
        .prop_map(|(nodes, level, below, member, quality)| Plan { nodes, level, below, member, quality })
}

fn program() -> impl Strategy<Value = Program> {
    let interval = prop_oneof![Just(0), 1..MS];
    prop_oneof![
        2 => (0..2000u64, 1..700usize, interval, any::<bool>())
            .prop_map(|(count, length, interval, closes)| Program::Source { count, length, interval, closes }),
        1 => Just(Program::Sink),
        1 => Just(Program::Echo),
    ]
}

fn settings() -> impl Strategy<Value = Settings> {
    let chance = || prop_oneof![Just(Chance::default()), (0.0..0.3f64).prop_map(|it| Chance::new(it).unwrap())];
    let rate = prop_oneof![Just(0), 1_000_000..1_000_000_000u64];
    (chance(), chance(), chance(), 0..10 * MS, 0..5 * MS, rate, any::<bool>()).prop_map(
        |(loss, duplicate, reorder, delay, jitter, rate, partition)| Settings {
            loss,
            duplicate,
            reorder,
            delay,
            jitter,
            rate,
            partition,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop::collection::vec(0..3u8, 0..200);
    let (flow, node, side) = (0..16usize, 0..3usize, 0..2usize);
    prop_oneof![
        4 => (flow.clone(), side.clone(), program()).prop_map(|(flow, side, it)| Step::Start(flow, side, it)),
        2 => (node.clone(), prop::option::of(0..4u64)).prop_map(|(node, calls)| Step::Allow(node, calls)),
        1 => (node.clone(), settings(), any::<u64>()).prop_map(|(node, it, seed)| Step::Impair(node, it, seed)),
        1 => (flow.clone(), side.clone()).prop_map(|(flow, side)| Step::Drop(flow, side)),
        1 => (flow.clone(), side.clone(), any::<bool>()).prop_map(|(flow, side, died)| Step::LetGo(flow, side, died)),
        1 => (flow.clone(), side.clone()).prop_map(|(flow, side)| Step::End(flow, side)),
        1 => (flow.clone(), side.clone(), any::<bool>()).prop_map(|(flow, side, died)| Step::Gone(flow, side, died)),
        1 => (flow.clone(), side.clone(), bytes()).prop_map(|(flow, side, data)| Step::Say(flow, side, data)),
        2 => (node.clone(), 0..4usize, bytes(), 0..60usize).prop_map(|(to, from, data, stride)| Step::Garbage(to, from, data, stride)),
        1 => (node, 1..LEVELS).prop_map(|(node, level)| Step::Close(node, level)),
        6 => prop_oneof![1..MS, MS..SECOND].prop_map(Step::Run),
    ]
}

/// A flow, as its commands need it.
#[derive(Debug, Clone, Copy)]
struct Made {
    node: usize,
    member: MemberId,
    level: usize,
    id: FlowId,
    eid: u64,
    user: Option<MemberId>,
}

struct World {
    net: Network,
    members: Vec<[MemberId; LEVELS]>,
    flows: Vec<[Made; 2]>,
    /// What was received by flows that ended, by their members.
    ended: BTreeMap<(usize, MemberId), u64>,
    owner: BTreeMap<(usize, FlowId), MemberId>,
    shown: Vec<Shown>,
}

/// What a node shows.
#[derive(Debug, Default)]
struct Shown(BTreeMap<Source, Vec<u64>>);

impl Board for Shown {
    fn publish(&mut self, source: Source, over: bool, values: &[u64]) {
        assert!(!over, "that comes with the event");
        self.0.insert(source, values.to_vec());
    }
}

impl World {
    fn new(plans: &[Plan]) -> Self {
        let mut net = Network::default();
        let members = (0..3).map(|_| {
            let node = net.add_node();
            let port = net.open_port(node, address(node), DELAY).unwrap();
            let mut members = [port; LEVELS];
            for member in &mut members[1..] {
                *member = net.name_member(node);
                net.stack(node).open_member(*member, Kind::Transfer);
            }
            members
        });
        let members = members.collect();
        (0..3).for_each(|node| net.stack(node).show());
        let (flows, ended, owner, shown) = (Vec::new(), BTreeMap::new(), BTreeMap::new(), Vec::new());
        let mut world = World { net, members, flows, ended, owner, shown };
        world.shown.resize_with(3, Shown::default);
        plans.iter().for_each(|plan| world.flow(plan));
        world
    }

    fn flow(&mut self, plan: &Plan) {
        let nodes = [plan.nodes.0, plan.nodes.1];
        let fits = |made: &&[Made; 2]| {
            made[0].level < plan.level && made[0].user.is_some() && [made[0].node, made[1].node] == nodes
        };
        let below: Vec<[Made; 2]> = self.flows.iter().filter(fits).copied().collect();
        let below = below.get(plan.below % below.len().max(1)).copied();
        let level = below.map_or(0, |lower| lower[0].level + 1);
        let first = 100 + 2 * self.flows.len() as u64;
        let member_above = plan.member && level + 1 < LEVELS;
        let made = [0, 1].map(|side| {
            let node = nodes[side];
            let eids = [(first, first + 1), (first + 1, first)][side];
            let (member, id) = (self.members[node][level], self.net.name_flow(node));
            let user = member_above.then(|| self.members[node][level + 1]);
            let mut setup = setup(id, member, side, level, plan.quality, eids);
            setup.carrier = match below {
                None => Carrier::Port(address(nodes[1 - side])),
                Some(lower) => Carrier::Transfer(lower[side].id),
            };
            if let Some(user) = user {
                setup.user = User::Transfer(user);
            }
            assert!(self.net.add(node, setup));
            self.owner.insert((node, id), member);
            Made { node, member, level, id, eid: eids.0, user }
        });
        self.flows.push(made);
    }

    fn made(&self, flow: usize, side: usize) -> Option<Made> {
        let flow = self.flows.get(flow % self.flows.len().max(1))?;
        Some(flow[side])
    }

    fn step(&mut self, step: &Step) {
        let now = self.net.now();
        match step {
            Step::Start(flow, side, program) => {
                self.made(*flow, *side).map(|it| self.net.start(it.node, it.id, *program));
            }
            Step::Allow(node, calls) => self.net.allow(*node, self.members[*node][0], *calls),
            Step::Impair(node, settings, seed) => self.net.impair(*node, self.members[*node][0], *settings, *seed),
            Step::Drop(flow, side) => {
                if let Some(it) = self.made(*flow, *side) {
                    self.net.stack(it.node).drop_flow(it.id);
                }
            }
            Step::LetGo(flow, side, died) => {
                let queue = self.made(*flow, *side).and_then(|it| self.net.queue(it.node, it.id));
                queue.into_iter().for_each(|queue| queue.let_go(*died));
                self.touch();
            }
            Step::End(flow, side) => {
                if let Some(it) = self.made(*flow, *side).filter(|it| it.user.is_some()) {
                    self.net.stack(it.node).end(now, it.id);
                }
            }
            Step::Gone(flow, side, died) => {
                if let Some(it) = self.made(*flow, *side) {
                    self.net.stack(it.node).peer_gone(it.member, it.eid, *died);
                }
            }
            Step::Say(flow, side, data) => {
                if let Some(it) = self.made(*flow, *side)
                    && let Some(user) = it.user
                {
                    self.net.stack(it.node).say(now, user, Where::Flow(it.id), &[&[0; 4], &data[..]].concat());
                }
            }
            Step::Garbage(to, from, data, stride) => {
                let member = self.members[*to][0];
                // Perhaps for a flow.
                let data = [&(99 + *stride as u32).to_be_bytes()[..], data].concat();
                self.net.stack(*to).receive(now, member, address(*from), Run::new(&data, *stride));
            }
            Step::Close(node, level) => self.net.close(*node, self.members[*node][*level], true),
            Step::Run(time) => self.run(*time),
        }
    }

    /// Something was done with the rings.
    fn touch(&mut self) {
        for node in 0..3 {
            self.net.stack(node);
        }
    }

    fn run(&mut self, time: u64) {
        let until = self.net.now() + time;
        loop {
            let (now, news) = self.net.run(until);
            if news.is_empty() && now >= until {
                break;
            }
            for (node, event) in news {
                if let Event::Ended(flow, _, counted, _) = event {
                    let member = self.owner[&(node, flow)];
                    account_of_flow(&counted);
                    *self.ended.entry((node, member)).or_default() += counted.0.received;
                }
            }
        }
        self.check();
    }

    fn snapshots(&mut self) -> Vec<Snapshot> {
        let places: Vec<_> = self.members.iter().enumerate().flat_map(|(node, all)| all.map(|it| (node, it))).collect();
        places.into_iter().map(|(node, member)| self.net.stack(node).snapshot(member)).collect()
    }

    fn check(&mut self) {
        assert_eq!(self.net.counted().stuck, 0);
        self.account();
        self.check_what_is_shown();
        self.check_that_nothing_waits();
    }

    /// A turn more of each flow changes nothing.
    fn check_that_nothing_waits(&mut self) {
        // But for what FRCP has taken in and cannot send yet: its queue of that is not empty, so it will be woken.
        let seen = |world: &mut World| {
            let flows = |it: Snapshot| it.flows.into_iter().map(|(id, counted)| (id, counted.0)).collect::<Vec<_>>();
            let all: Vec<_> = world.snapshots().into_iter().map(|it| (it.layer, flows(it))).collect();
            format!("{:?} {all:?}", world.net.counted()).replace(": 0,", "")
        };
        let before = seen(self);
        for made in self.flows.iter().flatten().copied().collect::<Vec<_>>() {
            self.net.stack(made.node).rang(made.id);
        }
        let (_, news) = self.net.run(self.net.now());
        assert!(news.is_empty(), "{news:?}");
        let after = seen(self);
        assert!(after == before, "{after}\n{before}");
    }

    /// Whoever looks at the board sees what whoever asks is told.
    fn check_what_is_shown(&mut self) {
        for node in 0..3 {
            self.net.stack(node).publish(&mut self.shown[node]);
            for member in self.members[node] {
                let Snapshot { layer, flows, .. } = self.net.stack(node).snapshot(member);
                let shown = &self.shown[node].0;
                if shown.get(&Source::Member(member)).is_some_and(|shown| *shown != layer.values()) {
                    // One that was closed counts nothing more.
                    assert_eq!(layer, LayerCounters::default());
                }
                for (flow, counted) in flows {
                    let values: Vec<_> = each_of_flow(&counted).map(|(_, value)| value).collect();
                    assert_eq!(shown.get(&Source::Flow(flow)), Some(&values), "{counted:?}");
                }
            }
        }
    }

    /// Where each datagram is that a member received, and each packet that a port was given.
    fn account(&mut self) {
        let balance = self.net.balance();
        assert!(balance.is_even(), "{balance:?}");
        for node in 0..3 {
            let balance = self.net.stack(node).balance();
            assert!(balance.is_even(), "node {node} {balance:?}");
            for member in self.members[node] {
                let Snapshot { layer, flows, .. } = self.net.stack(node).snapshot(member);
                let ended = self.ended.get(&(node, member)).copied().unwrap_or_default();
                let by_flows: u64 = flows.iter().map(|(_, counted)| counted.0.received).sum();
                let others = layer.management + layer.unknown + layer.wrong_source + layer.short + layer.refused;
                if layer.received > 0 {
                    assert_eq!(layer.received, by_flows + ended + others, "node {node} {layer:?}");
                }
                flows.iter().for_each(|(_, counted)| account_of_flow(counted));
            }
        }
    }

    /// Where each datagram is that left a port, once nothing is under way.
    fn account_of_links(&mut self) {
        for node in 0..3 {
            let port = self.members[node][0];
            self.net.impair(node, port, Settings::default(), 0);
            self.net.allow(node, port, None);
        }
        self.run(SECOND);
        for node in 0..3 {
            // Nothing more is sent.
            self.net.allow(node, self.members[node][0], Some(0));
        }
        self.run(5 * SECOND);
        let it = self.net.counted();
        assert_eq!(it.sent + it.duplicated, it.arrived + it.astray + it.lost, "{it:?}");
    }
}

/// What became of what a flow received.
fn account_of_flow((it, frcp): &Counted) {
    let gone = it.empty + it.damaged + it.rejected + it.replayed + it.overrun + it.unwanted;
    match frcp {
        Some(frcp) => {
            let taken_in = frcp.data_received + frcp.bare_received + frcp.malformed;
            assert_eq!(it.received, gone + taken_in, "{it:?} {frcp:?}");
            assert!(frcp.duplicates + frcp.beyond + frcp.rejected <= taken_in, "{frcp:?}");
            assert_eq!(it.delivered + it.undelivered, frcp.messages_read, "{it:?} {frcp:?}");
        }
        None => assert_eq!(it.received, gone + it.delivered, "{it:?}"),
    }
}

/// A flow within a node: bad or good links, or a broadcast member.
#[derive(Debug, Clone)]
enum Within {
    Loop(Quality),
    Joined,
}

#[derive(Debug, Clone)]
enum Inside {
    Start(usize, Program),
    LetGo(usize, bool),
    Drop(usize),
    Impair(Settings, u64),
    Run(u64),
}

fn within() -> impl Strategy<Value = Within> {
    prop_oneof![2 => quality().prop_map(Within::Loop), 1 => Just(Within::Joined)]
}

fn inside() -> impl Strategy<Value = Inside> {
    prop_oneof![
        4 => (0..16usize, program()).prop_map(|(flow, it)| Inside::Start(flow, longer(it))),
        1 => (0..16usize, any::<bool>()).prop_map(|(flow, died)| Inside::LetGo(flow, died)),
        1 => (0..16usize).prop_map(Inside::Drop),
        2 => (settings(), any::<u64>()).prop_map(|(it, seed)| Inside::Impair(it, seed)),
        4 => prop_oneof![1..MS, MS..SECOND].prop_map(Inside::Run),
    ]
}

/// The same with packets of which a ring has no room for many. Nothing echoes: what two members of a broadcast layer echo goes
/// round for ever, in no time.
fn longer(program: Program) -> Program {
    match program {
        Program::Source { count, length, interval, closes } => {
            Program::Source { count, length: 8 * length, interval, closes }
        }
        Program::Sink | Program::Echo => Program::Sink,
    }
}

/// A node without a port, and its flows.
fn inner_world(flows: &[Within]) -> (Network, [MemberId; 2], Vec<FlowId>) {
    let mut net = Network::default();
    let node = net.add_node();
    let members = [net.name_member(node), net.name_member(node)];
    net.stack(node).open_member(members[0], Kind::Local);
    net.stack(node).open_member(members[1], Kind::Broadcast(1));
    let mut all = Vec::new();
    for (number, flow) in flows.iter().enumerate() {
        let eids = (number as u64, 100 + number as u64);
        match flow {
            Within::Joined => {
                let id = net.name_flow(node);
                assert!(net.add(node, setup(id, members[1], 0, 0, RAW, eids)));
                all.push(id);
            }
            Within::Loop(quality) => {
                let ids = [net.name_flow(node), net.name_flow(node)];
                for side in [0, 1] {
                    let mut end = setup(ids[side], members[0], side, 0, *quality, eids);
                    end.carrier = Carrier::Loop(ids[1 - side]);
                    assert!(net.add(node, end));
                }
                all.extend(ids);
            }
        }
    }
    (net, members, all)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_packet_within_a_node_is_accounted_for(
        flows in prop::collection::vec(within(), 1..6),
        steps in prop::collection::vec(inside(), 1..30),
    ) {
        let (mut net, members, ids) = inner_world(&flows);
        let node = 0;
        for step in &steps {
            let id = |number: &usize| ids[number % ids.len()];
            match step {
                Inside::Start(flow, program) => {
                    net.start(node, id(flow), *program);
                }
                Inside::LetGo(flow, died) => {
                    net.queue(node, id(flow)).into_iter().for_each(|queue| queue.let_go(*died));
                    net.stack(node);
                }
                Inside::Drop(flow) => net.stack(node).drop_flow(id(flow)),
                Inside::Impair(settings, seed) => net.stack(node).impair(members[0], *settings, *seed),
                Inside::Run(time) => {
                    let until = net.now() + time;
                    while net.run(until).0 < until {}
                }
            }
            let balance = net.balance();
            assert!(balance.is_even(), "{step:?} {balance:?}");
        }
        members.iter().for_each(|member| net.close(node, *member, true));
        let balance = net.balance();
        assert!(balance.is_even() && balance.queued == 0, "{balance:?}");
    }

    #[test]
    fn nothing_waits_that_could_go_on_and_each_packet_is_accounted_for(
        plans in prop::collection::vec(plan(), 1..16),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut world = World::new(&plans);
        world.run(0);
        steps.iter().for_each(|step| world.step(step));
        world.run(SECOND);
        world.account_of_links();
    }
}
