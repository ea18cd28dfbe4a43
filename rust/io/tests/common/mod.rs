//! Ends of flows for tests.
#![allow(clippy::unwrap_used, dead_code)]

pub mod layers;

use std::os::fd::{AsFd, OwnedFd};
use std::thread::yield_now;

use ouroboros_shm::channel;
use ouroboros_shm::endpoint::{Endpoint, Error, Wait, Wish};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Both ends of a channel.
pub fn pair() -> (Endpoint, Endpoint) {
    let made = channel::create().unwrap();
    let [zero, one]: [OwnedFd; 2] = made.bells;
    (Endpoint::attach(&made.memory, zero, 0).unwrap(), Endpoint::attach(&made.memory, one, 1).unwrap())
}

pub fn write(endpoint: &Endpoint, packet: &[u8]) {
    assert_eq!(endpoint.writer().unwrap().stage(packet), Ok(true));
}

/// Write when there is room.
pub fn write_when_possible(endpoint: &Endpoint, packet: &[u8]) {
    while !endpoint.writer().unwrap().stage(packet).unwrap() {
        endpoint.wait(Wish::Room(packet.len()), None);
    }
}

/// The next packet, or why there will be none.
pub fn read(endpoint: &Endpoint) -> Result<Vec<u8>, Error> {
    loop {
        {
            let mut reader = endpoint.reader()?;
            if let Some(length) = reader.available()? {
                let packet = reader.peek(length).to_vec();
                let mut rest = Vec::with_capacity(length);
                reader.take(length, &mut rest.spare_capacity_mut()[..length]);
                return Ok(packet);
            }
        }
        assert_ne!(endpoint.wait(Wish::Packet, None), Wait::TimedOut);
    }
}

pub fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        yield_now();
    }
}

/// Whether a poller would call the descriptor readable.
pub fn is_readable(fd: impl AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&now)).unwrap() > 0
}
