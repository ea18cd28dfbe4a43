//! Steps of an honest side 0 and a hostile side 1, from numbers. Property tests and the fuzz target take them from here.

use std::io::IoSlice;
use std::mem::size_of;

use ouroboros_shm::endpoint::{Endpoint, Error, Wish};
use ouroboros_shm::layout::{CAPACITY, Control, MAX_PACKET, place as place_of};
use rustix::io::pwrite;
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, send, sendmsg, shutdown};

use super::{Flow, take, wait_now};

/// Number of kinds of steps.
pub const KINDS: u8 = 20;

/// A flow under attack.
pub struct Attack {
    flow: Flow,
    corrupt: bool,
}

impl Attack {
    pub fn new() -> Self {
        Attack { flow: Flow::new(), corrupt: false }
    }

    /// Of a flow whose ends seal their packets.
    pub fn guarded() -> Self {
        Attack { flow: Flow::guarded(), corrupt: false }
    }

    /// One step. `place` and `value` mean what the kind makes of them.
    pub fn step(&mut self, kind: u8, place: u16, value: u64) {
        let near = &self.flow.near;
        let length = value as usize % 5000;
        match kind % KINDS {
            0 => self.scribble(place as usize % (size_of::<Control>() / 8) * 8, &value.to_ne_bytes()),
            1 => self.scribble(place as usize % (size_of::<Control>() / 4) * 4, &(value as u32).to_ne_bytes()),
            // The words of the ring that side 1 writes, and of the one it reads.
            2 => self.scribble(control_word(place), &value.to_ne_bytes()),
            3 => self.nudge(place, value),
            4 => self.scribble(record_at(place), &(value as u32).to_ne_bytes()),
            5 => self.scribble(record_at(place), &(value as u32 % 6000).to_ne_bytes()),
            6 => self.scribble(record_at(place), &u32::MAX.to_ne_bytes()),
            7 => self.ring(1 + length % 40, SendFlags::empty()),
            8 => self.ring(1, SendFlags::OOB),
            9 if place == 0 => drop(shutdown(&self.flow.far_bell, Shutdown::Write)),
            9 => self.pass_descriptors(),
            10 => drop(super::write(&self.flow.far, &vec![place as u8; length])),
            11 => drop(super::read(&self.flow.far)),
            12 => drop(super::write(near, &vec![place as u8; length])),
            13 => drop(super::write(near, &vec![place as u8; MAX_PACKET])),
            14 => drop(near.set_state(value as u32)),
            15 => self.read_some(place as usize, |length| length),
            16 => self.read_some(1, |available| length.min(available)),
            17 => self.peek(),
            18 => {
                // Whatever there is ends in bounded time: no wait says "ready" for ever where nothing is.
                let wish = if place.is_multiple_of(2) { Wish::Packet } else { Wish::Room(length) };
                near.glance(wish);
                wait_now(near, wish);
            }
            _ => {
                let _ = near.pollable();
                // One may be out of the ring, and not read yet.
                assert!(near.receive_queue().unwrap() <= CAPACITY as u64 / 8 + 1);
                near.transmit_queue().unwrap();
            }
        }
    }

    /// Side 0 comes to an end, and quickly: it reads what is there, then hears that nothing is, or what is wrong.
    pub fn finish(mut self) {
        self.read_some(CAPACITY, |length| length);
        wait_now(&self.flow.near, Wish::Packet);
        self.read_some(CAPACITY, |length| length);
        self.flow.near.close();
        assert_eq!(self.flow.near.reader().err(), Some(Error::Closed));
    }

    fn scribble(&self, at: usize, bytes: &[u8]) {
        pwrite(&self.flow.memory, bytes, at as u64).unwrap();
    }

    /// Move a control word by a little, as an off-by-one would.
    fn nudge(&self, place: u16, value: u64) {
        let mut word = [0; 8];
        let at = control_word(place);
        rustix::io::pread(&self.flow.memory, &mut word, at as u64).unwrap();
        let moved = u64::from_ne_bytes(word).wrapping_add(value % 129).wrapping_sub(64);
        self.scribble(at, &moved.to_ne_bytes());
    }

    fn ring(&self, count: usize, flags: SendFlags) {
        // A full or closed socket is no concern of the attacker's.
        let _ = send(&self.flow.far_bell, &vec![b'?'; count], flags | SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }

    fn pass_descriptors(&self) {
        use std::os::fd::AsFd;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [self.flow.memory.as_fd()];
        assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds)));
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let _ = sendmsg(&self.flow.far_bell, &[IoSlice::new(b"?")], &mut control, flags);
    }

    fn read_some(&mut self, packets: usize, portion: impl Fn(usize) -> usize) {
        for _ in 0..packets {
            let mut reader = self.flow.near.reader().unwrap();
            match reader.available() {
                Ok(Some(length)) => {
                    assert!(length <= MAX_PACKET);
                    take(&mut reader, length, portion(length));
                }
                Ok(None) => {
                    assert!(!self.corrupt, "an error of the peer's was forgotten");
                    return;
                }
                Err(error) => {
                    assert!(!self.corrupt || error == Error::Corrupt);
                    self.corrupt = error == Error::Corrupt;
                    return;
                }
            }
        }
    }

    fn peek(&mut self) {
        let mut reader = self.flow.near.reader().unwrap();
        if let Ok(Some(length)) = reader.available() {
            assert_eq!(reader.peek(length).len(), length);
            assert_eq!(reader.peek(length).len(), length);
        }
    }

    pub fn near(&self) -> &Endpoint {
        &self.flow.near
    }
}

/// A word that matters: the state bits, or a control word of either ring.
fn control_word(place: u16) -> usize {
    use std::mem::offset_of;

    use ouroboros_shm::layout::{ConsumerLine, ProducerLine, RingControl, WaitLine};
    const WORDS: [usize; 6] = [
        offset_of!(RingControl, producer) + offset_of!(ProducerLine, tail),
        offset_of!(RingControl, producer) + offset_of!(ProducerLine, pushed),
        offset_of!(RingControl, consumer) + offset_of!(ConsumerLine, head),
        offset_of!(RingControl, consumer) + offset_of!(ConsumerLine, popped),
        offset_of!(RingControl, wait) + offset_of!(WaitLine, reader_armed),
        offset_of!(RingControl, wait) + offset_of!(WaitLine, wake_at),
    ];
    let place = place as usize;
    match place % (2 * WORDS.len() + 1) {
        0 => offset_of!(Control, state),
        word => {
            offset_of!(Control, rings)
                + (word - 1) / WORDS.len() * size_of::<RingControl>()
                + WORDS[(word - 1) % WORDS.len()]
        }
    }
}

/// Where a record of the ring that side 1 writes may start.
fn record_at(place: u16) -> usize {
    place_of(1, place as usize % 600 * 8).0
}
