//! Members of a unicast layer whose tables, ports and neighbours do what they like: each packet that came to one is counted
//! once, nothing waits for ever, and no bytes of a neighbour end a node.
#![allow(clippy::unwrap_used)]

mod common;

use common::layer::*;
use common::*;
use ouroboros_sim::Program;
use ouroboros_sim::stack::{FlowId, TransferSettings};
use ouroboros_wire::management::Report;
use ouroboros_wire::pci::Pci;
use ouroboros_wire::update::Word;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    /// Packets of a flow.
    Send {
        flow: usize,
        count: u64,
        length: usize,
    },
    /// Anything, by a lower flow.
    Inject {
        lower: usize,
        cube: u8,
        ttl: u8,
        destination: usize,
        eid: u64,
        length: usize,
    },
    Noise {
        lower: usize,
        bytes: Vec<u8>,
    },
    /// What receivers say, of any flow.
    Word {
        lower: usize,
        destination: usize,
        word: Word,
    },
    /// A table with whatever ways.
    Route {
        node: usize,
        ways: Vec<(usize, Vec<usize>)>,
        spread: bool,
    },
    /// The shortest ways.
    Heal,
    Port {
        node: usize,
        calls: Option<u64>,
    },
    TakeBack {
        lower: usize,
    },
    Drop {
        lower: usize,
    },
    Join {
        one: usize,
        other: usize,
        quality: usize,
    },
    Pass {
        time: u64,
    },
}

const NODES: usize = 4;
const QUALITIES: [Quality; 4] = [RAW, CREDIT, RELIABLE, ENCRYPTED];

fn step() -> impl Strategy<Value = Step> {
    let node = 0..NODES;
    prop_oneof![
        4 => (0..6usize, 1..300u64, 8..1200usize).prop_map(|(flow, count, length)| Step::Send { flow, count, length }),
        2 => (0..12usize, 0..4u8, any::<u8>(), 0..NODES + 1, prop_oneof![0..70u64, Just(100u64), 102..120u64], 0..1500usize)
            .prop_map(|(lower, cube, ttl, destination, eid, length)| Step::Inject { lower, cube, ttl, destination, eid, length }),
        1 => (0..12usize, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(lower, bytes)| Step::Noise { lower, bytes }),
        1 => (0..12usize, 0..NODES, word()).prop_map(|(lower, destination, word)| Step::Word { lower, destination, word }),
        1 => (node.clone(), prop::collection::vec((node.clone(), prop::collection::vec(node.clone(), 0..4)), 0..5), any::<bool>())
            .prop_map(|(node, ways, spread)| Step::Route { node, ways, spread }),
        1 => Just(Step::Heal),
        2 => (node.clone(), prop::option::of(0..20u64)).prop_map(|(node, calls)| Step::Port { node, calls }),
        1 => (0..12usize).prop_map(|lower| Step::TakeBack { lower }),
        1 => (0..12usize).prop_map(|lower| Step::Drop { lower }),
        1 => (node.clone(), node, 0..QUALITIES.len()).prop_map(|(one, other, quality)| Step::Join { one, other, quality }),
        4 => (0..200_000_000u64).prop_map(|time| Step::Pass { time }),
    ]
}

fn word() -> impl Strategy<Value = Word> {
    let eid = || prop_oneof![0..70u64, 108..116u64];
    prop_oneof![
        (eid(), any::<u16>()).prop_map(|(eid, ece)| Word::Congested(eid, ece)),
        (eid(), eid(), 0..400u64, any::<bool>()).prop_map(|(source, destination, counted, wait)| {
            Word::Report(Report { source, destination, counted, room: 1 << 20, wait })
        }),
    ]
}

struct World {
    layer: Layer,
    flows: Vec<(usize, FlowId)>,
}

impl World {
    fn new(quality: usize, ecn: bool) -> Self {
        let mut layer = Layer::new(NODES, TransferSettings { ecn, ..plain() });
        for (one, other) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
            layer.join(one, other, QUALITIES[quality]);
        }
        layer.route();
        let mut flows = Vec::new();
        for (one, other, quality) in [(0, 2, RAW), (1, 3, CREDIT), (0, 3, RELIABLE)] {
            let [near, far] = layer.flow(one, other, quality);
            flows.extend([(one, near), (other, far)]);
        }
        World { layer, flows }
    }

    fn lower(&self, at: usize) -> Option<((usize, usize), FlowId)> {
        self.layer.lower.iter().nth(at).map(|(key, flow)| (*key, *flow))
    }

    fn take(&mut self, step: Step) {
        let layer = &mut self.layer;
        match step {
            Step::Send { flow, count, length } => {
                let (node, flow) = self.flows[flow];
                layer.start(node, flow, Program::Source { count, length, interval: 0, closes: false });
            }
            Step::Inject { lower, cube, ttl, destination, eid, length } => {
                if let Some(((node, _), flow)) = self.lower(lower) {
                    let pci = Pci { destination: name(destination), cube, ttl, ecn: ttl, eid };
                    let packet = [&pci.write()[..], &vec![7; length]].concat();
                    self.layer.inject(node, flow, &packet);
                }
            }
            Step::Noise { lower, bytes } => {
                if let Some(((node, _), flow)) = self.lower(lower) {
                    self.layer.inject(node, flow, &bytes);
                }
            }
            Step::Word { lower, destination, word } => {
                if let Some(((node, _), flow)) = self.lower(lower) {
                    let pci = Pci { destination: name(destination), cube: 0, ttl: 9, ecn: 0, eid: 0 };
                    self.layer.inject(node, flow, &[&pci.write()[..], &word.write()].concat());
                }
            }
            Step::Route { node, ways, spread } => {
                let ways: Vec<_> = ways
                    .iter()
                    .map(|(to, ways)| (name(*to), ways.iter().map(|way| name(*way)).collect::<Vec<_>>()))
                    .collect();
                layer.set_ways(node, &ways, spread);
            }
            Step::Heal => layer.route(),
            Step::Port { node, calls } => {
                let port = layer.ports[node];
                layer.net.allow(node, port, calls);
            }
            Step::TakeBack { lower } => {
                if let Some(((node, _), flow)) = self.lower(lower) {
                    let member = self.layer.members[node];
                    self.layer.net.stack(node).take_back(member, flow);
                }
            }
            Step::Drop { lower } => {
                if let Some(((node, _), flow)) = self.lower(lower) {
                    self.layer.net.stack(node).drop_flow(flow);
                }
            }
            Step::Join { one, other, quality } if one != other => layer.join(one, other, QUALITIES[quality]),
            Step::Join { .. } => {}
            Step::Pass { time } => layer.run(time),
        }
    }

    /// Each packet that a member received was counted once.
    fn check(&mut self) {
        for node in 0..NODES {
            let member = self.layer.members[node];
            let stack = self.layer.net.stack(node);
            assert_eq!(stack.forgotten(), 0);
            let snapshot = stack.snapshot(member);
            let got = snapshot.transfer.unwrap();
            let flows: u64 = snapshot.flows.iter().map(|(_, (counters, _))| counters.received).sum();
            let passed = got.forwarded + got.waiting + got.heard + got.words + flows;
            let dropped = [got.no_route, got.ttl, got.returned, got.unknown_eid, got.malformed];
            let dropped = dropped.iter().sum::<u64>() + got.too_long + got.queue_full + got.expired;
            let layer = snapshot.layer;
            assert_eq!(
                layer.received,
                passed + dropped + layer.unknown + layer.wrong_source,
                "{got:?} {layer:?} {flows}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn each_packet_is_counted_once_and_nothing_waits_for_ever(
        quality in 0..QUALITIES.len(), ecn: bool, steps in prop::collection::vec(step(), 0..60)
    ) {
        let mut world = World::new(quality, ecn);
        for step in steps {
            world.take(step);
            world.check();
        }
        for node in 0..NODES {
            let port = world.layer.ports[node];
            world.layer.net.allow(node, port, None);
        }
        // Lower flows whose other end is gone never have room again; packets there wait as long as the flow does.
        for (node, flow) in world.layer.handed.clone() {
            world.layer.net.stack(node).drop_flow(flow);
        }
        world.layer.run(SECOND);
        world.check();
        for node in 0..NODES {
            prop_assert_eq!(world.layer.transfer(node).waiting, 0);
        }
    }

    #[test]
    fn flows_are_whole_again_when_the_ways_are(quality in 0..3usize, ecn: bool, steps in prop::collection::vec(step(), 0..30)) {
        let mut world = World::new(quality, ecn);
        for step in steps {
            if !matches!(step, Step::Drop { .. } | Step::Noise { .. } | Step::Inject { .. } | Step::Word { .. }) {
                world.take(step);
            }
        }
        for node in 0..NODES {
            let port = world.layer.ports[node];
            world.layer.net.allow(node, port, None);
        }
        for (one, other) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
            world.layer.join(one, other, RAW);
        }
        world.layer.route();
        // Whatever is left on its way, and sources that are not through.
        world.layer.run(20 * SECOND);
        let flows = world.layer.flow(0, 2, RELIABLE);
        world.layer.exchange((0, 2), flows, 200, 900);
        world.check();
    }
}
