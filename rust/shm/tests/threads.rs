//! Millions of packets between threads that sleep and wake each other as they like.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::Command;
use std::thread;

use ouroboros_shm::endpoint::{Endpoint, Error, Wish};

mod common;

use common::{Flow, read_all, take, wait_now, write_all};

const PACKETS: u64 = if cfg!(debug_assertions) { 500_000 } else { 2_000_000 };

/// A number, well mixed (splitmix64).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Packet `number`: the number itself, then as many bytes as follow from it, all of them told by it.
fn packet(number: u64) -> Vec<u8> {
    let seed = mix(number);
    let words = 1 + if seed & 1023 == 0 { 2000 } else { seed % 24 };
    (0..words).flat_map(|word| number.wrapping_add(word.wrapping_mul(seed)).to_ne_bytes()).collect()
}

/// The number of a packet that came whole and unharmed.
fn number_of(bytes: &[u8]) -> u64 {
    let number = u64::from_ne_bytes(bytes[..8].try_into().unwrap());
    assert!(bytes == packet(number), "packet {number} was harmed");
    number
}

fn write_numbers(endpoint: &Endpoint, numbers: impl Iterator<Item = u64>) {
    numbers.for_each(|number| write_all(endpoint, &packet(number)).unwrap());
}

/// Read up to 64 packets at a time, until the peer has closed.
fn read_to_end(endpoint: &Endpoint, mut each: impl FnMut(u64)) {
    loop {
        let mut reader = endpoint.reader().unwrap();
        for _ in 0..64 {
            match reader.available() {
                Ok(Some(length)) => each(number_of(&take(&mut reader, length, length))),
                Ok(None) => break,
                Err(error) => return assert_eq!(error, Error::PeerClosed),
            }
        }
        drop(reader);
        endpoint.wait(Wish::Packet, None);
    }
}

#[test]
fn every_packet_arrives_in_order() {
    let Flow { near, far, .. } = Flow::new();
    let reader = thread::spawn(move || {
        let mut expected = 0..;
        read_to_end(&far, |number| assert_eq!(Some(number), expected.next()));
        expected.start
    });
    write_numbers(&near, 0..PACKETS);
    near.close();
    assert_eq!(reader.join().unwrap(), PACKETS);
}

#[test]
fn two_readers_share_the_packets() {
    let Flow { near, far, .. } = Flow::new();
    let read = || {
        let (mut count, mut sum, mut last) = (0, 0, None);
        read_to_end(&far, |number| {
            assert!(last < Some(number), "each reader sees its packets in order");
            (count, sum, last) = (count + 1, sum + number, Some(number));
        });
        (count, sum)
    };
    let (one, two) = thread::scope(|scope| {
        let readers = [scope.spawn(read), scope.spawn(read)];
        write_numbers(&near, 0..PACKETS);
        near.close();
        let [one, two] = readers.map(|reader| reader.join().unwrap());
        (one, two)
    });
    assert_eq!((one.0 + two.0, one.1 + two.1), (PACKETS, PACKETS * (PACKETS - 1) / 2));
}

#[test]
fn two_writers_share_the_ring() {
    let Flow { near, far, .. } = Flow::new();
    thread::scope(|scope| {
        let writers = [0, 1].map(|start| {
            scope.spawn({
                let near = &near;
                move || write_numbers(near, (start..PACKETS).step_by(2))
            })
        });
        let mut next = [0, 1];
        for _ in 0..PACKETS {
            let number = number_of(&read_all(&far).unwrap());
            let next = &mut next[number as usize % 2];
            assert_eq!(number, *next);
            *next += 2;
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
}

#[test]
fn reader_that_is_faster_is_woken_for_each_packet() {
    // Each waits for the other's packet, so whoever sleeps must be woken.
    let Flow { near, far, .. } = Flow::new();
    thread::scope(|scope| {
        scope.spawn(|| (0..PACKETS / 20).for_each(|_| write_all(&far, &read_all(&far).unwrap()).unwrap()));
        for number in 0..PACKETS / 20 {
            write_all(&near, &packet(number)).unwrap();
            assert_eq!(number_of(&read_all(&near).unwrap()), number);
        }
    });
}

#[test]
fn writer_that_is_faster_is_woken_when_there_is_room() {
    // Packets of half a ring: the writer sleeps for nearly every one of them.
    let Flow { near, far, .. } = Flow::new();
    let count = PACKETS / 1000;
    thread::scope(|scope| {
        scope.spawn(|| (0..count).for_each(|number| write_all(&near, &[number as u8; 1_000_000]).unwrap()));
        for number in 0..count {
            assert!(read_all(&far).unwrap() == [number as u8; 1_000_000]);
        }
    });
    wait_now(&far, Wish::Packet);
}

#[test]
fn all_of_it_without_spinning() {
    if std::env::var_os("OUROBOROS_SPIN_US").is_some() {
        return;
    }
    let again = Command::new(std::env::current_exe().unwrap()).env("OUROBOROS_SPIN_US", "0").status().unwrap();
    assert!(again.success());
}
