//! A link between sockets.
#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::thread::yield_now;
use std::time::{Duration, Instant};

use ouroboros_io::impair::{Chance, Counters, Impairment, Settings, seed_of};
use ouroboros_io::link::{LONGEST, Link};

const MS: u64 = 1_000_000;
const SEED: u64 = 42;

/// A link, and what is connected to its ends.
fn link(settings: Settings) -> (Link, [UnixDatagram; 2]) {
    let [(one, near), (far, other)] = [(); 2].map(|()| UnixDatagram::pair().unwrap());
    (Link::start([near.into(), far.into()], [(settings, SEED); 2]).unwrap(), [one, other])
}

fn receive(socket: &UnixDatagram) -> Vec<u8> {
    let mut packet = vec![0; LONGEST];
    let length = socket.recv(&mut packet).unwrap();
    packet.truncate(length);
    packet
}

fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        yield_now();
    }
}

#[test]
fn packets_go_both_ways_whole_and_in_order() {
    let (link, [one, other]) = link(Settings { delay: MS, jitter: MS, ..Settings::default() });
    let packets: Vec<Vec<u8>> = (0..100usize).map(|number| vec![number as u8; number * 400]).collect();
    for (from, to) in [(&one, &other), (&other, &one)] {
        for few in packets.chunks(4) {
            few.iter().for_each(|packet| assert_eq!(from.send(packet).unwrap(), packet.len()));
            few.iter().for_each(|packet| assert_eq!(&receive(to), packet));
        }
    }
    until(|| link.counters() == Counters { delivered: 200, ..Counters::default() });
}

#[test]
fn the_longest_packet_of_ip_comes_through() {
    let (_link, [one, other]) = link(Settings::default());
    one.send(&vec![7; LONGEST]).unwrap();
    assert_eq!(receive(&other), vec![7; LONGEST]);
}

#[test]
fn a_packet_takes_its_time() {
    let (_link, [one, other]) = link(Settings { delay: 20 * MS, ..Settings::default() });
    let start = Instant::now();
    one.send(b"there").unwrap();
    other.send(&receive(&other)).unwrap();
    receive(&one);
    assert!(start.elapsed() >= Duration::from_millis(40));
}

#[test]
fn the_packets_that_the_seed_says_are_lost() {
    let settings = Settings { loss: Chance::new(0.3).unwrap(), ..Settings::default() };
    let (link, [one, other]) = link(settings);
    let mut lost = Counters::default();
    let mut expected = Impairment::new(settings, seed_of(SEED, 0, 0));
    for number in 0..100u8 {
        expected.offer(0, vec![number], &mut lost);
        one.send(&[number]).unwrap();
        if let Some(packet) = expected.due(0) {
            assert_eq!(receive(&other), packet);
        }
    }
    until(|| link.counters().lost == lost.lost);
    assert!(lost.lost > 0);
}

#[test]
fn directions_have_their_own_losses() {
    let settings = Settings { loss: Chance::new(0.5).unwrap(), ..Settings::default() };
    let (link, ends) = link(settings);
    let came: Vec<Vec<u8>> = [0, 1]
        .map(|from| {
            let before = link.counters().delivered + link.counters().lost;
            let (sender, receiver) = (&ends[from], &ends[1 - from]);
            receiver.set_nonblocking(true).unwrap();
            let mut came = Vec::new();
            for number in 0..64u8 {
                sender.send(&[number]).unwrap();
                until(|| link.counters().delivered + link.counters().lost == before + u64::from(number) + 1);
                let mut packet = [0];
                match receiver.recv(&mut packet) {
                    Ok(_) => came.push(packet[0]),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            came
        })
        .into();
    assert_ne!(came[0], came[1]);
}

#[test]
fn what_an_end_does_not_take_is_lost_and_counted() {
    let (link, [one, other]) = link(Settings::default());
    for _ in 0..2000 {
        one.send(&[0; 1000]).unwrap();
    }
    until(|| link.counters().delivered + link.counters().lost == 2000);
    let arrived = link.counters().delivered;
    assert!(arrived < 2000);
    // And the link goes on.
    for _ in 0..arrived {
        receive(&other);
    }
    one.send(b"after").unwrap();
    assert_eq!(receive(&other), b"after");
}

#[test]
fn what_is_sent_to_an_end_that_is_gone_is_lost() {
    let (link, [one, other]) = link(Settings::default());
    drop(other);
    one.send(b"anybody?").unwrap();
    until(|| link.counters().lost == 1);
}

#[test]
fn new_settings_are_for_what_is_sent_from_then_on() {
    let (link, [one, other]) = link(Settings { partition: true, ..Settings::default() });
    one.send(b"nobody hears this").unwrap();
    until(|| link.counters().lost == 1);
    link.set([Settings::default(); 2]);
    one.send(b"but this").unwrap();
    assert_eq!(receive(&other), b"but this");
}

#[test]
fn each_direction_has_settings_of_its_own() {
    let (link, [one, other]) = link(Settings::default());
    let nothing = Settings { partition: true, ..Settings::default() };
    for (lost, ways) in [(1, [nothing, Settings::default()]), (2, [Settings::default(), nothing])] {
        link.set(ways);
        let (dumb, heard) = if ways[0].partition { (&one, &other) } else { (&other, &one) };
        dumb.send(b"nobody hears this").unwrap();
        until(|| link.counters().lost == lost);
        heard.send(b"but this").unwrap();
        assert_eq!(receive(dumb), b"but this");
    }
}

/// Two sockets on loopback that are connected to each other.
fn udp_pair() -> (UdpSocket, UdpSocket) {
    let [near, far] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    near.connect(far.local_addr().unwrap()).unwrap();
    far.connect(near.local_addr().unwrap()).unwrap();
    (near, far)
}

#[test]
fn a_host_that_refused_a_datagram_gets_the_next() {
    let ((near, one), (far, other)) = (udp_pair(), udp_pair());
    let address = other.local_addr().unwrap();
    let link = Link::start([near.into(), far.into()], [(Settings::default(), SEED); 2]).unwrap();
    drop(other);
    one.send(b"refused").unwrap();
    until(|| link.counters().delivered == 1);
    let again = UdpSocket::bind(address).unwrap();
    again.set_nonblocking(true).unwrap();
    // The kernel tells the link about the first one by refusing another.
    until(|| {
        one.send(b"taken").unwrap();
        again.recv(&mut [0; 16]).is_ok_and(|length| length == 5)
    });
}

#[test]
fn a_link_that_stopped_lets_go_of_its_ends() {
    let (mut link, [one, _other]) = link(Settings::default());
    link.stop();
    assert_eq!(one.send(b"hello?").unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_link_whose_thread_panics_lets_go_of_its_ends_and_says_why() {
    let (link, [one, _other]) = link(Settings::default());
    link.panic();
    until(|| link.failure().is_some());
    assert!(link.failure().unwrap().starts_with("provoked by a test"));
    assert_eq!(one.send(b"hello?").unwrap_err().kind(), ErrorKind::ConnectionRefused);
}
