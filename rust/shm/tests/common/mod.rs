//! A flow with both sides in one process, and a peer that keeps no rule.
#![allow(dead_code, reason = "every test binary uses some of it")]

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use ouroboros_shm::channel::{self, Mapping};
use ouroboros_shm::endpoint::{Endpoint, Error, Reader, Wait, Wish};

pub mod checksum;
pub mod scribbler;

use checksum::Checksum;

/// Both sides of a new flow, and what a hostile side 1 has in its hands.
pub struct Flow {
    pub near: Endpoint,
    pub far: Endpoint,
    pub memory: OwnedFd,
    pub far_bell: OwnedFd,
    pub mapping: Mapping,
}

impl Flow {
    pub fn new() -> Self {
        let channel = channel::create().unwrap();
        let [near_bell, far_bell] = channel.bells;
        let memory = channel.memory;
        Flow {
            near: Endpoint::attach(&memory, near_bell, 0).unwrap(),
            far: Endpoint::attach(&memory, far_bell.try_clone().unwrap(), 1).unwrap(),
            mapping: Mapping::new(&memory).unwrap(),
            memory,
            far_bell,
        }
    }
}

impl Flow {
    /// A flow whose ends do not take what is not of the other.
    pub fn guarded() -> Self {
        let Flow { near, far, memory, far_bell, mapping } = Flow::new();
        let near = near.with_guard(Box::new(Checksum::default()));
        Flow { near, far: far.with_guard(Box::new(Checksum::default())), memory, far_bell, mapping }
    }
}

/// Write one packet. False: no room.
pub fn write(endpoint: &Endpoint, packet: &[u8]) -> Result<bool, Error> {
    endpoint.writer()?.stage(packet)
}

/// Read the next packet, or the rest of one. None: nothing there.
pub fn read(endpoint: &Endpoint) -> Result<Option<Vec<u8>>, Error> {
    let mut reader = endpoint.reader()?;
    let length = reader.available()?;
    Ok(length.map(|length| take(&mut reader, length, length)))
}

/// Take `count` of the `length` bytes that are available.
pub fn take(reader: &mut Reader<'_>, length: usize, count: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count);
    reader.take(length, &mut bytes.spare_capacity_mut()[..count]);
    // SAFETY: `take` wrote all of it.
    unsafe { bytes.set_len(count) };
    bytes
}

/// Write one packet, waiting for room.
pub fn write_all(endpoint: &Endpoint, packet: &[u8]) -> Result<(), Error> {
    while !write(endpoint, packet)? {
        endpoint.wait(Wish::Room(packet.len()), None);
    }
    Ok(())
}

/// Read one packet, waiting for it.
pub fn read_all(endpoint: &Endpoint) -> Result<Vec<u8>, Error> {
    loop {
        if let Some(packet) = read(endpoint)? {
            return Ok(packet);
        }
        endpoint.wait(Wish::Packet, None);
    }
}

/// Write until nothing fits any more.
pub fn fill(endpoint: &Endpoint) {
    while write(endpoint, &[7; 1 << 16]).unwrap() {}
    while write(endpoint, &[7; 8]).unwrap() {}
}

/// Wait no longer than a look takes.
pub fn wait_now(endpoint: &Endpoint, wish: Wish) -> Wait {
    endpoint.wait(wish, Some(Instant::now()))
}

/// Whether a poller would call the descriptor readable.
pub fn is_readable(fd: impl AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&now)).unwrap() > 0
}
