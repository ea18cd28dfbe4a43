//! One direction of a flow: a single-producer, single-consumer ring of whole packets, written for a hostile other side.
//!
//! A record is a 4-byte length, 4 unused bytes and the packet, padded to 8; it may run over the end of the data into its
//! start. Each side keeps its own position in private memory and believes nothing it reads from the shared one: a word is
//! copied once, checked against what is possible, and the copy is used. What is impossible is `Corrupt`, for good.
//!
//! When the ring is empty and the producer has left the first bytes, it goes back there: it says from which position
//! (`skip`) and goes on at the next start of the data. So a flow with a short backlog lives in one page. What is skipped is
//! room like any other.
//!
//! Doorbell. The socket of the reader is readable exactly while `reader_armed` is 0 (a token byte is in it, or about to
//! be). It starts that way, with a token put in at creation. The reader arms only when it found the ring empty, and
//! checks again before it takes the token out; the producer that finds it armed disarms it and sends one byte. So a
//! readable socket may be a false alarm but an unreadable one never hides a packet, for any number of waiting threads,
//! pollers included.

use core::mem::MaybeUninit;

use crate::layout::{MAX_PACKET, RingControl};
use crate::sync::{Ordering, fence};

const HEADER: u64 = 8;
/// No position.
const NEVER: u64 = u64::MAX;

/// The memory of one ring.
pub trait Memory {
    /// Bytes of data; a power of two.
    const CAPACITY: usize;
    /// A producer that would pass this offset in an empty ring goes back to the start.
    const HOME: usize;
    /// How often, in bytes, a producer checks whether it can go back.
    const CHECK: usize;

    /// The control words.
    fn control(&self) -> &RingControl;
    /// Copy `source` to offset `at`, running over the end into the start. `source.len()` is at most `CAPACITY`.
    fn write(&self, at: usize, source: &[u8]);
    /// Copy from offset `at`, running over the end into the start.
    fn read(&self, at: usize, target: &mut [MaybeUninit<u8>]);
    /// The four bytes at offset `at`, a multiple of 8, as a native integer.
    fn length_at(&self, at: usize) -> u32;
}

/// The socket by which a sleeping reader is woken.
pub trait Bell {
    /// Take up to `count` token bytes out, which is at least 1; returns how many there were.
    fn drain(&self, count: usize) -> usize;
    /// Whether a token byte is in it.
    fn has_token(&self) -> bool;
}

/// The other side wrote something impossible into the shared memory, or rang when nobody had asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Corrupt;

/// Why a packet was not staged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageError {
    /// No room now.
    Full,
    /// Longer than `MAX_PACKET`, or than this ring can ever hold.
    TooLong,
    /// See `Corrupt`.
    Corrupt,
}

impl From<Corrupt> for StageError {
    fn from(_: Corrupt) -> Self {
        StageError::Corrupt
    }
}

/// The start of the data that comes after a position.
const fn after_skip<M: Memory>(position: u64) -> u64 {
    (position / M::CAPACITY as u64 + 1) * M::CAPACITY as u64
}

/// Bytes that a packet of `length` takes in the ring.
const fn record(length: usize) -> u64 {
    HEADER + (length as u64).next_multiple_of(8)
}

/// The writing half. Call `stage` for each packet, then `publish`.
#[derive(Debug)]
pub struct Producer<M> {
    memory: M,
    tail: u64,
    published: u64,
    head: u64,
    packets: u64,
    check_at: u64,
    skip: u64,
}

impl<M: Memory> Producer<M> {
    /// The producer of a fresh ring.
    pub fn new(memory: M) -> Self {
        Producer { memory, tail: 0, published: 0, head: 0, packets: 0, check_at: 0, skip: NEVER }
    }

    /// Copy a packet into the ring; the reader sees it after `publish`.
    pub fn stage(&mut self, packet: &[u8]) -> Result<(), StageError> {
        if packet.len() > MAX_PACKET || packet.len() > M::CAPACITY - HEADER as usize {
            return Err(StageError::TooLong);
        }
        let need = record(packet.len());
        self.go_home(need)?;
        if !self.fits(need) {
            self.refresh_head()?;
            if !self.fits(need) {
                return Err(StageError::Full);
            }
        }
        let at = self.offset(self.tail);
        self.memory.write(at, &(packet.len() as u32).to_ne_bytes());
        self.memory.write(self.offset(self.tail + HEADER), packet);
        self.tail += need;
        self.packets += 1;
        Ok(())
    }

    /// Show all staged packets to the reader. True: the reader sleeps, ring its doorbell (send one byte).
    #[must_use]
    pub fn publish(&mut self) -> bool {
        if self.published == self.tail {
            return false;
        }
        self.published = self.tail;
        let control = self.memory.control();
        control.producer.pushed.store(self.packets, Ordering::Relaxed);
        // Pairs with the Acquire load in `Consumer::refresh_tail`: packet bytes are written before they become visible.
        control.producer.tail.store(self.tail, Ordering::Release);
        self.disarm()
    }

    /// Disarm the reader's doorbell, after a change of a word that it reads. True: it was armed, send one byte.
    #[must_use]
    pub fn disarm(&self) -> bool {
        // Pairs with the fence in `Consumer::arm`: either we see it armed, or it sees our change.
        fence(Ordering::SeqCst);
        let armed = &self.memory.control().wait.reader_armed;
        armed.load(Ordering::Relaxed) == 1 && armed.swap(0, Ordering::AcqRel) == 1
    }

    /// Whether a packet of `length` would fit now.
    pub fn has_room(&mut self, length: usize) -> Result<bool, Corrupt> {
        let need = record(length);
        if !self.fits(need) {
            self.refresh_head()?;
        }
        Ok(self.fits(need))
    }

    /// Ask to be woken when a packet of `length` fits and half of the ring is free. Look (`has_room`) once more after it.
    pub fn request_wake(&self, length: usize) {
        let capacity = M::CAPACITY as u64;
        let enough = (self.tail + record(length)).saturating_sub(capacity);
        let comfortable = self.tail.saturating_sub(capacity / 2);
        let control = self.memory.control();
        // Pairs with the Acquire load in `Consumer::release`: a thread that sees the wish sees `writer_armed`, too.
        control.wait.wake_at.store(enough.max(comfortable).max(1), Ordering::Release);
        // Pairs with the fence in `Consumer::release`: either it sees our wish, or we see its head.
        fence(Ordering::SeqCst);
    }

    /// Ask for the doorbell, too, when writers are woken. Call it before `request_wake`.
    pub fn arm(&self) {
        self.memory.control().wait.writer_armed.swap(1, Ordering::AcqRel);
    }

    /// Take that back. True: the doorbell was rung for it.
    pub fn unarm(&self) -> bool {
        self.memory.control().wait.writer_armed.swap(0, Ordering::AcqRel) == 0
    }

    /// Packets that the reader has not taken yet. The reader can lie, but never about more than was written.
    pub fn queued(&self) -> u64 {
        let popped = self.memory.control().consumer.popped.load(Ordering::Relaxed);
        self.packets.saturating_sub(popped)
    }

    fn fits(&self, need: u64) -> bool {
        // A reader that has not come by the skip yet has read all before it.
        let head = if self.head == self.skip { after_skip::<M>(self.skip) } else { self.head };
        self.tail.saturating_sub(head) + need <= M::CAPACITY as u64
    }

    fn offset(&self, position: u64) -> usize {
        position as usize & (M::CAPACITY - 1)
    }

    fn refresh_head(&mut self) -> Result<(), Corrupt> {
        // Pairs with the Release store in `Consumer::release`: the reader is done with the bytes before we reuse them.
        let head = self.memory.control().consumer.head.load(Ordering::Acquire);
        if head < self.head || head > self.published {
            return Err(Corrupt);
        }
        self.head = head;
        Ok(())
    }

    fn go_home(&mut self, need: u64) -> Result<(), Corrupt> {
        let offset = self.offset(self.tail) as u64;
        if offset == 0 || offset + need <= M::HOME as u64 || self.tail < self.check_at {
            return Ok(());
        }
        self.check_at = self.tail + M::CHECK as u64;
        self.refresh_head()?;
        if self.head == self.tail {
            // Seen by the reader with the tail that is published next.
            self.memory.control().producer.skip.store(self.tail, Ordering::Relaxed);
            self.skip = self.tail;
            self.tail += M::CAPACITY as u64 - offset;
            self.check_at = 0;
        }
        Ok(())
    }
}

/// The reading half. Call `next_length`, then `take`, then `release`. Between two calls of `release` there is no more to take
/// than a ring holds, whatever the producer does.
#[derive(Debug)]
pub struct Consumer<M> {
    memory: M,
    head: u64,
    released: u64,
    tail: u64,
    packets: u64,
    late_tokens: usize,
    room_token: bool,
}

/// Result of arming the doorbell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arm {
    /// Armed: the next packet rings. Sleep on the socket.
    Armed,
    /// There is a packet already, or the end.
    Ready,
}

impl<M: Memory> Consumer<M> {
    /// The consumer of a fresh ring.
    pub fn new(memory: M) -> Self {
        Consumer { memory, head: 0, released: 0, tail: 0, packets: 0, late_tokens: 0, room_token: false }
    }

    /// Length of the next packet, or None when there is none.
    #[inline]
    pub fn next_length(&mut self) -> Result<Option<usize>, Corrupt> {
        if self.head == self.tail {
            self.refresh_tail()?;
            if self.head == self.tail {
                return Ok(None);
            }
        }
        let length = self.memory.length_at(self.offset(self.head)) as usize;
        if length > MAX_PACKET || record(length) > self.tail - self.head {
            return Err(Corrupt);
        }
        Ok(Some(length))
    }

    /// Copy the next packet out and step over it. `target` has exactly the length that `next_length` just returned.
    pub fn take(&mut self, target: &mut [MaybeUninit<u8>]) {
        self.memory.read(self.offset(self.head + HEADER), target);
        self.head += record(target.len());
        self.packets += 1;
    }

    /// Give the space of taken packets back to the writer. True: writers wait for it, wake them.
    #[must_use]
    pub fn release(&mut self) -> bool {
        if self.released == self.head {
            return false;
        }
        self.released = self.head;
        let control = self.memory.control();
        control.consumer.popped.store(self.packets, Ordering::Relaxed);
        // Pairs with the Acquire load in `Producer::refresh_head`.
        control.consumer.head.store(self.head, Ordering::Release);
        // Pairs with the fence in `Producer::request_wake`.
        fence(Ordering::SeqCst);
        let wake_at = control.wait.wake_at.load(Ordering::Acquire);
        if wake_at == 0 || self.head < wake_at {
            return false;
        }
        control.wait.wake_at.store(0, Ordering::Relaxed);
        true
    }

    /// Disarm the doorbell of a writer that waits for room. True: it was armed, send one byte.
    #[must_use]
    pub fn disarm_writer(&self) -> bool {
        let armed = &self.memory.control().wait.writer_armed;
        armed.load(Ordering::Acquire) == 1 && armed.swap(0, Ordering::AcqRel) == 1
    }

    /// From now on a token may come that tells of room to write, not of a packet.
    pub fn expect_room_token(&mut self) {
        self.room_token = true;
    }

    /// No such token comes any more; `rung`: one did, or is on its way.
    pub fn settle_room_token(&mut self, rung: bool, bell: &impl Bell) {
        self.room_token = false;
        if rung {
            self.late_tokens += 1;
            self.late_tokens -= bell.drain(self.late_tokens).min(self.late_tokens);
        }
    }

    /// Arm the doorbell of a ring that was found empty. `ended` tells whether something other than a packet keeps the
    /// reader from sleeping; a thread that changes that calls `Producer::disarm`.
    pub fn arm(&mut self, bell: &impl Bell, ended: impl FnOnce() -> bool) -> Result<Arm, Corrupt> {
        if self.is_armed() {
            self.settle(bell)?;
            return Ok(Arm::Armed);
        }
        // A swap, though a store would do: loom does not know that no store comes between the halves of another's swap.
        self.memory.control().wait.reader_armed.swap(1, Ordering::Relaxed);
        // Pairs with the fence in `Producer::disarm`.
        fence(Ordering::SeqCst);
        let ready = self.next_length()?.is_some() || ended();
        let rung = ready && self.memory.control().wait.reader_armed.swap(0, Ordering::AcqRel) == 0;
        if !ready || rung {
            // One token too many: the one from before we armed. It may still be on its way, then it is taken out later;
            // tokens are counted, so it does not matter which of them is.
            self.late_tokens += 1;
            self.late_tokens -= bell.drain(self.late_tokens).min(self.late_tokens);
        }
        Ok(if ready { Arm::Ready } else { Arm::Armed })
    }

    fn is_armed(&self) -> bool {
        self.memory.control().wait.reader_armed.load(Ordering::Acquire) == 1
    }

    /// Take out tokens that came late. While armed, any other token is one that nobody owed us: a peer could keep us
    /// awake with those.
    fn settle(&mut self, bell: &impl Bell) -> Result<(), Corrupt> {
        if self.late_tokens > 0 {
            self.late_tokens -= bell.drain(self.late_tokens).min(self.late_tokens);
            return Ok(());
        }
        // In this order: a token that was there before we saw ourselves armed is not the answer to this arming.
        if !self.room_token && bell.has_token() && self.is_armed() {
            return Err(Corrupt);
        }
        Ok(())
    }

    /// Whether a packet is (probably) there, without taking the right to read. For spinning.
    pub fn peek(memory: &M, head: u64) -> bool {
        memory.control().producer.tail.load(Ordering::Relaxed) != head
    }

    /// Position for `peek`.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Packets that were written and not taken yet, as the writer counts them.
    pub fn queued(&self) -> u64 {
        let pushed = self.memory.control().producer.pushed.load(Ordering::Relaxed);
        pushed.saturating_sub(self.packets).min(M::CAPACITY as u64 / HEADER)
    }

    fn offset(&self, position: u64) -> usize {
        position as usize & (M::CAPACITY - 1)
    }

    /// Look for new packets; for when all that were known are read.
    fn refresh_tail(&mut self) -> Result<(), Corrupt> {
        let producer = &self.memory.control().producer;
        // Pairs with the Release store in `Producer::publish`.
        let tail = producer.tail.load(Ordering::Acquire);
        if tail == self.tail {
            return Ok(());
        }
        // The producer skips only from a ring that is empty for it, that is from where we are and said to be.
        let empty = self.released == self.head && self.offset(self.head) != 0;
        let skipped = empty && producer.skip.load(Ordering::Relaxed) == self.head;
        let (head, released) =
            if skipped { [after_skip::<M>(self.head); 2].into() } else { (self.head, self.released) };
        // Taken packets are no room until they are released: else a tail that runs on would keep us taking for ever.
        if tail < head || tail - released > M::CAPACITY as u64 || !tail.is_multiple_of(8) {
            return Err(Corrupt);
        }
        // The producer counts a head from which it skipped as the one behind the skip, too.
        (self.head, self.released, self.tail) = (head, released, tail);
        Ok(())
    }
}
