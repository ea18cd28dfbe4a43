//! What a packet costs between two UDP layers on loopback, in clear and encrypted, in nanoseconds of processor time of each
//! thread: `cargo run --release -p ouroboros-io --example rate`. Unlike a rate, that hardly depends on what else runs.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::Instant;

use ouroboros_crypto::{Role, Session, Settings, Suite};
use ouroboros_io::udp::{Setup, UdpLayer};
use ouroboros_shm::channel;
use ouroboros_shm::endpoint::{Endpoint, Wish};

const PACKETS: u64 = 400_000;
const LENGTH: usize = 1400;

fn main() {
    println!("{:12} {:>10} {:>10} {:>12}", "", "sender ns", "receiver ns", "k packets/s");
    for _ in 0..3 {
        for suite in [None, Some(Suite::Aes256Gcm)] {
            let (sender, receiver, rate) = run(suite);
            let name = suite.map_or("in clear", Suite::name);
            println!("{name:12} {sender:10.0} {receiver:10.0} {:12.0}", rate / 1000.0);
        }
    }
}

/// Processor time of both layers for a packet that arrived, and how many arrive in a second.
fn run(suite: Option<Suite>) -> (f64, f64, f64) {
    let (one, to_one) = layer("127.0.0.1");
    let (other, to_other) = layer("127.0.0.2");
    let near = add(&one, 71, to_other, 72, suite, Role::Allocator);
    let far = add(&other, 72, to_one, 71, suite, Role::Acceptor);
    other.snapshot();
    let start = Instant::now();
    let writer = thread::spawn(move || {
        let packet = [7; LENGTH];
        for _ in 0..PACKETS {
            while !near.writer().unwrap().stage(&packet).unwrap() {
                near.wait(Wish::Room(LENGTH), None);
            }
        }
        near
    });
    let mut place = [MaybeUninit::uninit(); LENGTH];
    let mut arrived = 0u64;
    loop {
        let over = writer.is_finished();
        let mut reader = far.reader().unwrap();
        while let Some(length) = reader.available().unwrap() {
            reader.take(length, &mut place[..length]);
            arrived += 1;
        }
        if over {
            break;
        }
        thread::yield_now();
    }
    let elapsed = start.elapsed();
    let used = layers_used();
    drop(writer.join().unwrap());
    let [sender, receiver] = used[..] else { return (0.0, 0.0, 0.0) };
    (sender / arrived as f64, receiver / arrived as f64, arrived as f64 / elapsed.as_secs_f64())
}

fn layer(ip: &str) -> (UdpLayer, SocketAddr) {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    (UdpLayer::start(OwnedFd::from(socket)).unwrap(), address)
}

fn add(layer: &UdpLayer, eid: u32, peer: SocketAddr, peer_eid: u32, suite: Option<Suite>, role: Role) -> Endpoint {
    let made = channel::create().unwrap();
    let [zero, one]: [OwnedFd; 2] = made.bells;
    layer.add(Setup {
        eid,
        peer_eid,
        peer,
        endpoint: Endpoint::attach(&made.memory, one, 1).unwrap(),
        frcp: None,
        seed: 7,
        credit: true,
        crypto: suite.map(|suite| Session::new(Settings::new(suite, role), &[7; 32]).unwrap()),
        crc: false,
        timeout: 0,
        mtu: 9000,
    });
    Endpoint::attach(&made.memory, zero, 0).unwrap()
}

/// Nanoseconds that the threads of the layers have run, the oldest first.
fn layers_used() -> Vec<f64> {
    let mut tasks: Vec<u32> = fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|id| fs::read_to_string(format!("/proc/self/task/{id}/comm")).is_ok_and(|name| name == "udp\n"))
        .collect();
    tasks.sort_unstable();
    let used = |id| fs::read_to_string(format!("/proc/self/task/{id}/schedstat")).ok()?.split(' ').next()?.parse().ok();
    tasks.into_iter().filter_map(used).collect()
}
