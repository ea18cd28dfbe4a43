//! The rights to read and to write.

use core::mem::MaybeUninit;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

use super::{Endpoint, Error, Receiver};
use crate::channel::{MappedRing, wake_writers};
use crate::ring::{Consumer, Corrupt, Memory, Producer, StageError};

/// The right to read from an endpoint, held for the length of one call.
#[derive(Debug)]
pub struct Reader<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) receiver: MutexGuard<'a, Receiver>,
}

impl Reader<'_> {
    /// Bytes of the next packet, or of the rest of a partly read one; 0 for the mark that a packet ended; None: nothing there.
    pub fn available(&mut self) -> Result<Option<usize>, Error> {
        if !self.receiver.held.is_empty() {
            return Ok(Some(self.held_length()));
        }
        if let Some(length) = self.next()? {
            return Ok(Some(length));
        }
        match self.endpoint.peer_error() {
            Ok(()) => Ok(None),
            // The last packets may have come between our first try and the peer's end.
            Err(error) => match self.next()? {
                None if !self.endpoint.is_abandoned() => Err(error),
                next => Ok(next),
            },
        }
    }

    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<usize>, Error> {
        if self.endpoint.corrupt.load(Ordering::Relaxed) {
            return Err(Error::Corrupt);
        }
        let next = self.endpoint.note_corrupt(self.receiver.consumer.next_length())?;
        match &self.endpoint.guarded {
            Some(guarded) => {
                let receiver = &mut *self.receiver;
                let opened = guarded.open_next(&mut receiver.consumer, next, &mut receiver.held);
                Ok(self.endpoint.note_corrupt(opened)?.then(|| self.held_length()))
            }
            None => Ok(next),
        }
    }

    fn held_length(&self) -> usize {
        if self.receiver.held.end_mark { 0 } else { self.receiver.held.rest().len() }
    }

    /// Copy the first `target.len()` bytes of what is available; the rest stays for the next time.
    pub fn take(&mut self, length: usize, target: &mut [MaybeUninit<u8>]) {
        self.fill(length, target);
    }

    /// As `take`; returns how many bytes of `target` it wrote.
    fn fill(&mut self, length: usize, target: &mut [MaybeUninit<u8>]) -> usize {
        let reads = &self.endpoint.reads_in_a_row;
        reads.store(reads.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
        let receiver = &mut *self.receiver;
        receiver.held.unread = false;
        if receiver.held.end_mark {
            receiver.held.end_mark = false;
            0
        } else if !receiver.held.is_empty() {
            let taken = copy(receiver.held.rest(), target);
            receiver.held.advance(taken, self.endpoint.guarded.is_some());
            taken
        } else if target.len() == length {
            receiver.consumer.take(target);
            length
        } else {
            self.hold(length);
            self.fill(length, target)
        }
    }

    /// Append all of what is available, which is `length` bytes.
    #[allow(unsafe_code)]
    pub fn append_to(&mut self, bytes: &mut Vec<u8>, length: usize) {
        bytes.reserve(length);
        let taken = self.fill(length, &mut bytes.spare_capacity_mut()[..length]);
        // SAFETY: `fill` wrote so many bytes of the spare capacity.
        unsafe { bytes.set_len(bytes.len() + taken) };
    }

    /// All of what is available, without taking it.
    pub fn peek(&mut self, length: usize) -> &[u8] {
        if self.receiver.held.is_empty() {
            self.hold(length);
        }
        if self.receiver.held.end_mark { &[] } else { self.receiver.held.rest() }
    }

    /// The next read finds the mark of the end of a packet.
    pub fn mark_end(&mut self) {
        self.receiver.held.end_mark = true;
    }

    fn hold(&mut self, length: usize) {
        let receiver = &mut *self.receiver;
        receiver.held.hold(|bytes| take_into(&mut receiver.consumer, length, bytes));
    }
}

/// Take the next packet, which has `length` bytes, in the place of what is in `bytes`.
#[allow(unsafe_code)]
pub(super) fn take_into(consumer: &mut Consumer<MappedRing>, length: usize, bytes: &mut Vec<u8>) {
    bytes.clear();
    bytes.reserve(length);
    consumer.take(&mut bytes.spare_capacity_mut()[..length]);
    // SAFETY: `take` wrote all `length` bytes of the spare capacity.
    unsafe { bytes.set_len(length) };
}

/// Copy as much as both have; returns how much.
fn copy(source: &[u8], target: &mut [MaybeUninit<u8>]) -> usize {
    for (to, from) in target.iter_mut().zip(source) {
        to.write(*from);
    }
    source.len().min(target.len())
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let endpoint = self.endpoint;
        let receiver = &mut *self.receiver;
        if receiver.consumer.release() {
            wake_writers(&endpoint.incoming.control().wait.space);
            endpoint.ring_writer(&receiver.consumer);
        }
        endpoint.head.store(receiver.consumer.head(), Ordering::Relaxed);
        if endpoint.polled.load(Ordering::Relaxed)
            && receiver.consumer.next_length() == Ok(None)
            && endpoint.peer_error().is_ok()
        {
            // A peer that broke the protocol shows at the next call.
            let _ = endpoint.arm(receiver);
        }
    }
}

/// The right to write to an endpoint, held for the length of one call. Staged packets are published when it is dropped.
#[derive(Debug)]
pub struct Writer<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) producer: MutexGuard<'a, Producer<MappedRing>>,
}

impl Writer<'_> {
    /// Copy a packet into the ring. False: no room now.
    pub fn stage(&mut self, packet: &[u8]) -> Result<bool, Error> {
        let longest = self.endpoint.longest;
        if packet.len() > longest {
            return Err(Error::TooLong(longest));
        }
        self.endpoint.reads_in_a_row.store(0, Ordering::Relaxed);
        let staged = match &self.endpoint.guarded {
            Some(guarded) => guarded.stage(&mut self.producer, packet).ok_or(Error::Unsealed)?,
            None => self.producer.stage(packet),
        };
        match staged {
            Ok(()) => Ok(true),
            Err(StageError::Full) => Ok(false),
            Err(StageError::TooLong) => Err(Error::TooLong(longest)),
            Err(StageError::Corrupt) => Ok(self.endpoint.note_corrupt(Err(Corrupt))?),
        }
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if self.producer.publish() {
            self.endpoint.bell.ring();
        }
    }
}
