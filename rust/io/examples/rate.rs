//! What a packet costs between UDP layers on loopback, in nanoseconds of processor time of each thread, and how many packets
//! leave in one call of the kernel: `cargo run --release -p ouroboros-io --example rate [ROW]`. Unlike a rate, the times hardly
//! depend on what else runs. The last row writes to many flows in turn, which lead to two layers in turn.
#![allow(clippy::unwrap_used)]

use std::env;
use std::fs;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Instant;

use ouroboros_crypto::{Role, Session, Settings, Suite};
use ouroboros_frcp::{Config, Peer, UNSENT};
use ouroboros_io::Program;
use ouroboros_io::engine::Engine;
use ouroboros_io::stack::{Carrier, FlowId, Kind, MemberId, Setup, User};
use ouroboros_shm::channel;
use ouroboros_shm::endpoint::{Endpoint, Wish};

const LENGTH: usize = 1400;

/// What is measured.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    packets: u64,
    /// Packets written until those before have left the ring.
    burst: u64,
    peers: u32,
    flows: u32,
    suite: Option<Suite>,
    reliable: bool,
    /// Layers between the flows and the port.
    layers: u32,
}

const CLEAR: Case = Case {
    name: "in clear",
    packets: 400_000,
    burst: u64::MAX,
    peers: 1,
    flows: 1,
    suite: None,
    reliable: false,
    layers: 0,
};
const CASES: [Case; 5] = [
    CLEAR,
    Case { name: "AES-256-GCM", suite: Some(Suite::Aes256Gcm), ..CLEAR },
    Case { name: "reliable", reliable: true, ..CLEAR },
    Case { name: "a layer more", layers: 1, ..CLEAR },
    Case { name: "in turn", burst: 64, peers: 2, flows: 64, ..CLEAR },
];

fn main() {
    let row = env::args().nth(1);
    let packets = env::args().nth(2).and_then(|number| number.parse().ok());
    println!("{:12} {:>10} {:>12} {:>13} {:>10}", "", "sender ns", "receivers ns", "k packets/s", "per call");
    for _ in 0..if packets.is_some() { 1 } else { 3 } {
        for case in CASES.iter().filter(|case| row.as_ref().is_none_or(|row| row == case.name)) {
            run(Case { packets: packets.unwrap_or(case.packets), ..*case });
        }
    }
}

/// Print the processor time of the layers for a packet that arrived, how many arrive in a second, and leave in a call.
fn run(case: Case) {
    let (one, port, to_one) = layer("127.0.0.1");
    let others: Vec<_> = (0..case.peers).map(|number| layer(&format!("127.0.0.{}", number + 2))).collect();
    let above = |engine: &Engine, port, peer, eid, peer_eid| match case.layers {
        0 => (port, Carrier::Port(peer)),
        _ => add_layer(engine, port, peer, eid, peer_eid),
    };
    let (mut near, mut far) = (Vec::new(), Vec::new());
    let mut carriers = Vec::new();
    for (at, (other, far_port, to_other)) in others.iter().enumerate() {
        let eids = (1_000_000 + 2 * at as u64, 1_000_001 + 2 * at as u64);
        carriers.push((above(&one, port, *to_other, eids.0, eids.1), above(other, *far_port, to_one, eids.1, eids.0)));
    }
    for eid in 1..=u64::from(case.flows) {
        let at = (eid % u64::from(case.peers)) as usize;
        let (here, there) = carriers[at];
        near.push(add(&one, here, 2 * eid, 2 * eid + 1, case, Role::Allocator));
        far.push(add(&others[at].0, there, 2 * eid + 1, 2 * eid, case, Role::Acceptor));
    }
    others.iter().for_each(|(other, port, _)| drop(other.snapshot(*port)));
    let start = Instant::now();
    let writer = thread::spawn(move || {
        for number in 0..case.packets {
            let flow = &near[(number % u64::from(case.flows)) as usize];
            while !flow.writer().unwrap().stage(&[7; LENGTH]).unwrap() {
                flow.wait(Wish::Room(LENGTH), None);
            }
            while number % case.burst == case.burst - 1 && near.iter().any(|flow| flow.transmit_queue().unwrap() > 0) {
                thread::yield_now();
            }
        }
        near
    });
    let mut place = [MaybeUninit::uninit(); LENGTH];
    let mut arrived = 0u64;
    loop {
        let over = if case.reliable { arrived == case.packets } else { writer.is_finished() };
        for flow in &far {
            let mut reader = flow.reader().unwrap();
            while let Some(length) = reader.available().unwrap() {
                reader.take(length, &mut place[..length]);
                arrived += 1;
            }
        }
        if over {
            break;
        }
        thread::yield_now();
    }
    let rate = arrived as f64 / start.elapsed().as_secs_f64();
    let used = layers_used();
    let state = one.snapshot(port);
    let sent: u64 = state.flows.iter().map(|(_, (counters, _))| counters.sent).sum();
    let (sender, receivers) = (used[0] / arrived as f64, used[1..].iter().sum::<f64>() / arrived as f64);
    let each = sent as f64 / state.layer.calls as f64;
    println!("{:12} {sender:10.0} {receivers:12.0} {:13.0} {each:10.1}", case.name, rate / 1000.0);
    drop(writer.join().unwrap());
}

fn layer(ip: &str) -> (Engine, MemberId, SocketAddr) {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let engine = Engine::start().unwrap();
    let port = engine.open_port(OwnedFd::from(socket), None).unwrap();
    (engine, port, address)
}

/// A member over a flow of a port, and what carries its flows.
fn add_layer(engine: &Engine, port: MemberId, peer: SocketAddr, eid: u64, peer_eid: u64) -> (MemberId, Carrier) {
    let member = engine.open_member(Kind::Transfer);
    let lower = engine.name();
    let carrier = Carrier::Port(peer);
    engine.add(vec![setup(lower, (port, carrier), eid, peer_eid, User::Transfer(member))]);
    (member, Carrier::Transfer(lower))
}

fn add(engine: &Engine, over: (MemberId, Carrier), eid: u64, peer_eid: u64, case: Case, role: Role) -> Endpoint {
    let made = channel::create().unwrap();
    let [zero, one]: [OwnedFd; 2] = made.bells;
    let own = Peer::Own { sack: true, fragments: true, window: 1 << 16 };
    let frcp =
        Config { reliable: true, peer: own, max_packet: 1500, mpl: 5_000_000_000, unsent: UNSENT, thrifty: false };
    let user = User::Program(Program::new(Endpoint::attach(&made.memory, one, 1).unwrap()));
    engine.add(vec![Setup {
        frcp: case.reliable.then_some(frcp),
        session: case.suite.map(|suite| Session::new(Settings::new(suite, role), &[7; 32]).unwrap()),
        ..setup(engine.name(), over, eid, peer_eid, user)
    }]);
    Endpoint::attach(&made.memory, zero, 0).unwrap()
}

/// A raw flow.
fn setup(
    id: FlowId,
    (member, carrier): (MemberId, Carrier),
    eid: u64,
    peer_eid: u64,
    user: User<Program>,
) -> Setup<Program> {
    Setup { eid, peer_eid, seed: 7, credit: true, mtu: 9000, ..Setup::new(id, member, carrier, user) }
}

/// Nanoseconds that the threads of the layers have run, the oldest first.
fn layers_used() -> Vec<f64> {
    let mut tasks: Vec<u32> = fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|id| fs::read_to_string(format!("/proc/self/task/{id}/comm")).is_ok_and(|name| name == "engine\n"))
        .collect();
    tasks.sort_unstable();
    let used = |id| fs::read_to_string(format!("/proc/self/task/{id}/schedstat")).ok()?.split(' ').next()?.parse().ok();
    tasks.into_iter().filter_map(used).collect()
}
