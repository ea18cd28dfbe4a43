//! Two UDP layers on loopback, and programs at both ends.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use common::layers::{Event, Setup, UdpLayer};
use common::{is_readable, pair, read, until, write, write_when_possible};
use ouroboros_crypto::{Replay, Role, Session, Suite};
use ouroboros_io::impair::{Chance, Settings};
use ouroboros_io::stack::How;
use ouroboros_shm::channel;
use ouroboros_shm::endpoint::{Endpoint, Error};

/// Flags of FRCP packets.
const DATA: u8 = 1;
const DRF: u8 = 2;

struct Node {
    layer: UdpLayer,
    address: SocketAddr,
}

impl Node {
    fn new(ip: &str) -> Self {
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        Node { layer: UdpLayer::start(OwnedFd::from(socket)).unwrap(), address }
    }

    /// The program's end of a flow to a peer.
    fn add(&self, eid: u64, peer: SocketAddr, peer_eid: u64, change: impl FnOnce(&mut Setup)) -> Endpoint {
        let (program, endpoint) = pair();
        let mut setup = Setup {
            eid,
            peer_eid,
            peer,
            endpoint,
            frcp: None,
            seed: 7,
            credit: true,
            crypto: None,
            crc: false,
            timeout: 0,
            mtu: 9000,
        };
        change(&mut setup);
        self.layer.add(setup);
        program
    }

    fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        until(|| {
            events.extend(self.layer.take_events());
            !events.is_empty()
        });
        events
    }

    fn end_of(&self, eid: u64) -> How {
        match self.events().first() {
            Some(Event::Ended(id, how, _)) if *id == eid => *how,
            other => panic!("{other:?}"),
        }
    }
}

fn nodes() -> (Node, Node) {
    (Node::new("127.0.0.1"), Node::new("127.0.0.2"))
}

fn flow(one: &Node, other: &Node, change: impl Fn(&mut Setup)) -> (Endpoint, Endpoint) {
    (one.add(71, other.address, 72, &change), other.add(72, one.address, 71, &change))
}

/// Wait until a layer has done all that it was told before.
fn settle(node: &Node) {
    node.layer.snapshot();
}

#[test]
fn packets_go_both_ways_whole() {
    let (one, other) = nodes();
    for crc in [false, true] {
        let (near, far) = flow(&one, &other, |setup| setup.crc = crc);
        settle(&one);
        settle(&other);
        for (from, to) in [(&near, &far), (&far, &near)] {
            for length in [1, 2, 3, 4, 5, 1400, 8976] {
                let packet: Vec<u8> = (0..length).map(|at| at as u8).collect();
                write(from, &packet);
                assert_eq!(read(to).as_ref(), Ok(&packet));
            }
        }
        near.close();
        far.close();
        assert_eq!(one.end_of(71), How::Closed);
        assert_eq!(other.end_of(72), How::Closed);
    }
}

#[test]
fn a_fast_sender_is_held_back() {
    let (one, other) = nodes();
    let (near, far) = flow(&one, &other, |_| {});
    settle(&other);
    const PACKETS: u32 = 20_000;
    // One of the last surely arrives, and says that the others have.
    let tail = PACKETS - 500;
    let writer = std::thread::spawn(move || {
        for number in 0..PACKETS {
            let mut packet = [0; 1400];
            packet[..4].copy_from_slice(&number.to_be_bytes());
            write_when_possible(&near, &packet);
        }
        near
    });
    let (mut last, mut received) = (None, 0);
    while last.is_none_or(|last| last < tail) {
        let packet = read(&far).unwrap();
        let number = u32::from_be_bytes(packet[..4].try_into().unwrap());
        assert!(last.is_none_or(|last| number > last), "{number} after {last:?}");
        (last, received) = (Some(number), received + 1);
    }
    writer.join().unwrap().close();
    assert!(received >= tail * 95 / 100, "{received}: {:?}", other.layer.snapshot());
}

#[test]
fn a_slow_reader_is_waited_for_again_and_again_and_is_heard_after_that() {
    let (one, other) = nodes();
    let (near, far) = flow(&one, &other, |_| {});
    settle(&other);
    let writer = std::thread::spawn(move || {
        (0..20_000u32).for_each(|_| write_when_possible(&near, &[7; 1400]));
        near
    });
    // More than half of its ring is full each time.
    while !writer.is_finished() {
        while !writer.is_finished() && far.receive_queue().unwrap() < 800 {
            std::thread::yield_now();
        }
        while far.receive_queue().unwrap() > 0 {
            read(&far).unwrap();
        }
    }
    let near = writer.join().unwrap();
    write(&far, b"heard");
    assert_eq!(read(&near), Ok(b"heard".to_vec()));
}

#[test]
fn no_word_of_control_is_lost_while_the_socket_takes_them() {
    let (one, other) = nodes();
    (0..50_000).for_each(|_| one.layer.send(&[0; 47], other.address));
    assert_eq!(one.layer.snapshot().layer.errors, 0);
}

#[test]
fn packets_that_came_before_their_flow_wait_for_it() {
    let (one, other) = nodes();
    other.layer.reserve(72, one.address);
    settle(&other);
    let near = one.add(71, other.address, 72, |_| {});
    write(&near, b"early");
    until(|| other.layer.snapshot().layer.received > 0);
    let far = other.add(72, one.address, 71, |_| {});
    assert_eq!(read(&far), Ok(b"early".to_vec()));
}

#[test]
fn packets_from_elsewhere_are_dropped_and_counted() {
    let (one, other) = nodes();
    let (near, far) = flow(&one, &other, |_| {});
    settle(&other);
    let stranger = UdpSocket::bind("127.0.0.3:0").unwrap();
    stranger.send_to(b"\0\0\0\x48spoofed", other.address).unwrap();
    stranger.send_to(b"\0\0\0\x49nobody", other.address).unwrap();
    stranger.send_to(b"\0\0", other.address).unwrap();
    stranger.send_to(b"", other.address).unwrap();
    stranger.send_to(&[0; 46], other.address).unwrap();
    stranger.send_to(&[0; 2049], other.address).unwrap();
    until(|| other.layer.snapshot().layer.refused == 1);
    let layer = other.layer.snapshot().layer;
    assert_eq!((layer.wrong_source, layer.unknown, layer.short, layer.refused), (1, 1, 3, 1));
    write(&near, b"genuine");
    assert_eq!(read(&far), Ok(b"genuine".to_vec()));
}

#[test]
fn management_datagrams_go_to_control_with_their_source() {
    let (one, other) = nodes();
    let mut datagram = vec![0; 47];
    datagram[44] = 1;
    one.layer.send(&datagram, other.address);
    match other.events().remove(0) {
        Event::Management(data, from) => assert_eq!((data, from), (datagram, one.address)),
        event => panic!("{event:?}"),
    }
}

#[test]
fn what_control_says_comes_behind_the_packets_of_a_flow_that_ended() {
    let (one, other) = nodes();
    let (near, far) = flow(&one, &other, |_| {});
    settle(&other);
    (0..50u8).for_each(|number| write(&near, &[number]));
    near.close();
    assert_eq!(one.end_of(71), How::Closed);
    one.layer.send(&[0; 47], other.address);
    assert!(matches!(other.events()[..], [Event::Management(..)]));
    assert_eq!(other.layer.snapshot().flows[0].1.delivered, 50);
    drop(far);
}

#[test]
fn what_control_said_leaves_before_the_layer_stops() {
    let (one, other) = nodes();
    (0..50).for_each(|_| one.layer.send(&[0; 47], other.address));
    drop(one);
    let mut count = 0;
    until(|| {
        count += other.layer.take_events().len();
        count == 50
    });
}

#[test]
fn a_program_that_lets_go_sends_what_it_wrote_and_the_layer_says_so() {
    let (one, other) = nodes();
    let (near, far) = flow(&one, &other, |_| {});
    settle(&other);
    (0..50u8).for_each(|number| write(&near, &[number]));
    near.close();
    for number in 0..50 {
        assert_eq!(read(&far), Ok(vec![number]));
    }
    assert_eq!(one.end_of(71), How::Closed);
}

#[test]
fn a_program_that_died_without_a_word_is_noticed_by_its_doorbell() {
    let (one, other) = nodes();
    let made = channel::create().unwrap();
    let [zero, program] = made.bells;
    let endpoint = Endpoint::attach(&made.memory, zero, 0).unwrap();
    let far = other.add(72, one.address, 71, |_| {});
    let near = Endpoint::attach(&made.memory, program.try_clone().unwrap(), 1).unwrap();
    let (eid, peer_eid, peer) = (71, 72, other.address);
    let (frcp, seed, credit, crypto, crc, timeout, mtu) = (None, 7, true, None, false, 0, 9000);
    one.layer.add(Setup { eid, peer_eid, peer, endpoint, frcp, seed, credit, crypto, crc, timeout, mtu });
    settle(&other);
    write(&near, b"last words");
    // The kernel closes the descriptors of a process that is killed; nobody writes into the memory then.
    std::mem::forget(near);
    rustix::net::shutdown(&program, rustix::net::Shutdown::Both).unwrap();
    assert_eq!(read(&far), Ok(b"last words".to_vec()));
    assert_eq!(one.end_of(71), How::Died);
}

#[test]
fn a_peer_that_deallocates_or_dies_ends_the_flow_behind_its_packets() {
    for (died, error) in [(false, Error::PeerClosed), (true, Error::PeerDead)] {
        let (one, other) = nodes();
        let (near, far) = flow(&one, &other, |_| {});
        settle(&other);
        write(&near, b"last");
        until(|| other.layer.snapshot().flows[0].1.delivered == 1);
        other.layer.peer_gone(72, died);
        assert_eq!(read(&far), Ok(b"last".to_vec()));
        assert_eq!(read(&far), Err(error));
        assert_eq!(other.end_of(72), How::Gone);
    }
}

#[test]
fn keepalives_hold_a_silent_flow_and_a_dead_peer_is_noticed() {
    let (one, other) = nodes();
    let (near, far) = flow(&one, &other, |setup| setup.timeout = 100);
    until(|| other.layer.snapshot().flows[0].1.received >= 8);
    write(&near, b"still there");
    assert_eq!(read(&far), Ok(b"still there".to_vec()));
    drop(one);
    assert_eq!(read(&far), Err(Error::PeerDead));
    assert_eq!(other.end_of(72), How::Silent);
}

#[test]
fn an_impaired_layer_loses_packets_and_counts_them() {
    let (one, other) = nodes();
    one.layer.impair(Settings { loss: Chance::new(0.5).unwrap(), ..Settings::default() }, 1);
    let (near, far) = flow(&one, &other, |setup| setup.credit = false);
    settle(&other);
    (0..200u8).for_each(|number| write(&near, &[number]));
    near.close();
    assert_eq!(one.end_of(71), How::Closed);
    let lost = one.layer.snapshot().layer.lost;
    assert!((50..150).contains(&lost), "{lost}");
    for _ in lost..200 {
        read(&far).unwrap();
    }
}

#[test]
fn a_layer_that_stops_takes_its_flows_down() {
    let (one, other) = nodes();
    let (near, _far) = flow(&one, &other, |_| {});
    settle(&one);
    drop(one);
    assert_eq!(read(&near), Err(Error::PeerDead));
}

#[test]
fn flows_of_a_layer_whose_thread_panics_end_as_died_and_so_do_those_to_come() {
    let (one, other) = nodes();
    let (near, _far) = flow(&one, &other, |setup| setup.frcp = Some(frcp()));
    let (raw, _far) = (one.add(73, other.address, 74, |_| {}), &other);
    settle(&one);
    one.layer.panic();
    // One that the thread may not have seen yet.
    let late = one.add(75, other.address, 76, |_| {});
    for program in [&near, &raw, &late] {
        assert_eq!(read(program), Err(Error::PeerDead));
    }
    until(|| one.layer.failure().is_some());
    let failure = one.layer.failure().unwrap();
    assert!(failure.starts_with("provoked by a test (") && failure.contains(".rs:"), "{failure}");
    assert!(is_readable(one.layer.news()));
    assert_eq!(read(&one.add(77, other.address, 78, |_| {})), Err(Error::PeerDead));
    assert!(one.layer.snapshot().flows.is_empty());
    assert_eq!(other.layer.failure(), None);
}

fn session(suite: Suite, role: Role, replay: Replay) -> Session {
    let settings = ouroboros_crypto::Settings { replay, ..ouroboros_crypto::Settings::new(suite, role) };
    Session::new(settings, &[7; 32]).unwrap()
}

fn encrypted(one: &Node, other: &Node, suite: Suite, change: impl Fn(&mut Setup)) -> (Endpoint, Endpoint) {
    let add = |node: &Node, eid, peer, peer_eid, role| {
        node.add(eid, peer, peer_eid, |setup| {
            setup.crypto = Some(session(suite, role, Replay::Reject));
            change(setup);
        })
    };
    let near = add(one, 71, other.address, 72, Role::Allocator);
    let far = add(other, 72, one.address, 71, Role::Acceptor);
    settle(one);
    settle(other);
    (near, far)
}

#[test]
fn encrypted_packets_go_both_ways_whole() {
    let (one, other) = nodes();
    for suite in Suite::ALL {
        for crc in [false, true] {
            for reliable in [false, true] {
                let (near, far) = encrypted(&one, &other, suite, |setup| {
                    setup.crc = crc;
                    setup.frcp = reliable.then(frcp);
                });
                for (from, to) in [(&near, &far), (&far, &near)] {
                    for length in [1, 2, 3, 4, 5, 1300, 1300, 1300, 1] {
                        let packet: Vec<u8> = (0..length).map(|at| at as u8).collect();
                        write(from, &packet);
                        assert_eq!(read(to).as_ref(), Ok(&packet), "{suite:?}");
                    }
                }
                near.close();
                far.close();
                one.end_of(71);
                other.end_of(72);
            }
        }
    }
}

fn frcp() -> ouroboros_frcp::Config {
    ouroboros_frcp::Config {
        reliable: true,
        peer: ouroboros_frcp::Peer::Own { sack: true, fragments: true, window: 1 << 16 },
        max_packet: 1400,
        mpl: 5_000_000_000,
        unsent: ouroboros_frcp::UNSENT,
        thrifty: false,
    }
}

#[test]
fn a_window_that_reading_opened_is_told_unasked() {
    let (one, _) = nodes();
    let socket = UdpSocket::bind("127.0.0.3:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let program = one.add(71, socket.local_addr().unwrap(), 72, |setup| {
        setup.frcp = Some(ouroboros_frcp::Config { peer: ouroboros_frcp::Peer::Prototype, ..frcp() });
    });
    settle(&one);
    let send = |flags: u8, seqno: u32| {
        let packet = [&71u32.to_be_bytes()[..], &[flags, 0, 0, 0], &seqno.to_be_bytes(), &[0; 4], b"message"].concat();
        socket.send_to(&packet, one.address).unwrap();
    };
    let told = || {
        let mut bytes = [0; 100];
        socket.recv(&mut bytes).unwrap();
        u32::from_be_bytes([0, bytes[5], bytes[6], bytes[7]])
    };
    send(DATA | DRF, 100);
    let edge = told();
    // The one that is missing makes a whole window readable at once, after which this peer waits to be told.
    (102..edge).for_each(|seqno| send(DATA, seqno));
    send(DATA, 101);
    (100..edge).for_each(|_| assert_eq!(read(&program).as_deref(), Ok(&b"message"[..])));
    until(|| told() > edge);
}

/// What goes over the wire from a node, as a peer that is a bare socket sees it.
struct Tap {
    socket: UdpSocket,
    crypto: Session,
}

impl Tap {
    /// A tap, and the program's end of a flow of `node` to it.
    fn new(node: &Node, replay: Replay, change: impl FnOnce(&mut Setup)) -> (Self, Endpoint) {
        let socket = UdpSocket::bind("127.0.0.3:0").unwrap();
        let program = node.add(71, socket.local_addr().unwrap(), 72, |setup| {
            setup.crypto = Some(session(Suite::Aes256Gcm, Role::Allocator, replay));
            setup.credit = false;
            change(setup);
        });
        settle(node);
        (Tap { socket, crypto: session(Suite::Aes256Gcm, Role::Acceptor, replay) }, program)
    }

    fn receive(&self) -> Vec<u8> {
        let mut bytes = vec![0; 65536];
        let length = self.socket.recv(&mut bytes).unwrap();
        bytes.truncate(length);
        bytes
    }

    fn send(&self, packet: &[u8], to: SocketAddr) {
        self.socket.send_to(&[&71u32.to_be_bytes(), packet].concat(), to).unwrap();
    }

    fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        self.crypto.seal(plain, &mut packet).unwrap();
        packet
    }

    fn open(&mut self, datagram: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        self.crypto.open(&datagram[4..], &mut plain).unwrap();
        plain
    }
}

#[test]
fn a_datagram_is_endpoint_id_iv_ciphertext_tag_and_checksum() {
    let (one, _) = nodes();
    let (mut tap, program) = Tap::new(&one, Replay::Accept, |setup| setup.crc = true);
    write(&program, b"to be hidden");
    let datagram = tap.receive();
    assert_eq!(datagram.len(), 4 + 12 + 12 + 16 + 4);
    assert_eq!(datagram[..4], 72u32.to_be_bytes());
    let (sealed, crc) = datagram.split_at(datagram.len() - 4);
    assert_eq!(crc32fast::hash(&sealed[4..]).to_be_bytes(), crc);
    assert_eq!(tap.open(sealed), b"to be hidden");
}

#[test]
fn packets_that_go_out_together_are_sealed_each() {
    let (one, _) = nodes();
    let (mut tap, program) = Tap::new(&one, Replay::Reject, |_| {});
    let packets: Vec<[u8; 1300]> = (0..20).map(|number| [number; 1300]).collect();
    {
        let mut writer = program.writer().unwrap();
        packets.iter().for_each(|packet| assert_eq!(writer.stage(packet), Ok(true)));
    }
    for packet in &packets {
        let datagram = tap.receive();
        assert_eq!(tap.open(&datagram), packet);
    }
}

#[test]
fn what_frcp_sends_again_is_sealed_anew() {
    let (one, _) = nodes();
    let (mut tap, program) = Tap::new(&one, Replay::Reject, |setup| setup.frcp = Some(frcp()));
    write(&program, b"never acknowledged");
    let (first, second) = (tap.receive(), tap.receive());
    assert_ne!(first[4..16], second[4..16]);
    // The second would be rejected as replayed otherwise.
    let (first, second) = (tap.open(&first), tap.open(&second));
    assert!(first.ends_with(b"never acknowledged") && second.ends_with(b"never acknowledged"));
}

#[test]
fn altered_replayed_and_reflected_packets_are_dropped_and_counted() {
    let (one, _) = nodes();
    let (mut tap, program) = Tap::new(&one, Replay::Reject, |_| {});
    write(&program, b"own");
    let own = tap.receive();
    let genuine = tap.seal(b"genuine");
    for at in 0..genuine.len() {
        let mut altered = genuine.clone();
        altered[at] ^= 4;
        tap.send(&altered, one.address);
    }
    tap.send(&genuine[..27], one.address);
    tap.send(&own[4..], one.address);
    tap.send(&genuine, one.address);
    tap.send(&genuine, one.address);
    let last = tap.seal(b"last");
    tap.send(&last, one.address);
    assert_eq!(read(&program), Ok(b"genuine".to_vec()));
    assert_eq!(read(&program), Ok(b"last".to_vec()));
    let counters = one.layer.snapshot().flows[0].1;
    assert_eq!((counters.rejected, counters.replayed), (genuine.len() as u64 + 1, 2));
    assert_eq!(counters.delivered, 2);
}

#[test]
fn keepalives_of_an_encrypted_flow_are_empty() {
    let (one, _) = nodes();
    let (tap, _program) = Tap::new(&one, Replay::Reject, |setup| setup.timeout = 40);
    assert_eq!(tap.receive(), 72u32.to_be_bytes());
}
