//! Packets that the two ends of a flow encrypt, so that nothing between them reads or alters them.

use std::cell::RefCell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::access::take_into;
use super::lock;
use crate::channel::MappedRing;
use crate::layout::MAX_PACKET;
use crate::ring::{Consumer, Corrupt, Producer, StageError};

/// Buffers longer than that are not kept for the next packet.
const KEEP: usize = 128 << 10;

/// Seals the packets of one end, and opens the packets of the other.
pub trait Guard: Send + std::fmt::Debug {
    /// Bytes by which a packet grows.
    fn overhead(&self) -> usize;
    /// Seal `plain` into `sealed`, which is longer by the overhead. False: this end can seal no more.
    fn seal(&mut self, plain: &[u8], sealed: &mut [u8]) -> bool;
    /// Open `sealed` into `plain`, which is shorter by the overhead. False: it is not to be delivered.
    fn open(&mut self, sealed: &[u8], plain: &mut [u8]) -> bool;
}

/// A guard and its buffers.
#[derive(Debug)]
pub(super) struct Guarded {
    guard: Mutex<Box<dyn Guard>>,
    overhead: usize,
    rejected: AtomicU64,
    /// The last read found packets, and let none of them through.
    swamped: AtomicBool,
}

thread_local! {
    /// A sealed packet, on its way to the ring or from it. The content of a ring may change at any time, so
    /// nothing is sealed or opened in it.
    static SEALED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Guarded {
    pub(super) fn new(guard: Box<dyn Guard>) -> Self {
        Guarded {
            overhead: guard.overhead(),
            guard: Mutex::new(guard),
            rejected: AtomicU64::new(0),
            swamped: AtomicBool::new(false),
        }
    }

    pub(super) fn overhead(&self) -> usize {
        self.overhead
    }

    pub(super) fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    pub(super) fn is_swamped(&self) -> bool {
        self.swamped.load(Ordering::Relaxed)
    }

    /// Seal a packet into the ring. None: sealing has come to its end.
    pub(super) fn stage(&self, producer: &mut Producer<MappedRing>, plain: &[u8]) -> Option<Result<(), StageError>> {
        let length = plain.len() + self.overhead;
        if length > MAX_PACKET {
            return Some(Err(StageError::TooLong));
        }
        // Before the work.
        match producer.has_room(length) {
            Ok(true) => {}
            Ok(false) => return Some(Err(StageError::Full)),
            Err(Corrupt) => return Some(Err(StageError::Corrupt)),
        }
        with_sealed(|sealed| {
            let sealed = at_least(sealed, length);
            lock(&self.guard).seal(plain, sealed).then(|| producer.stage(sealed))
        })
    }

    /// Take packets out of the ring until one opens, into `held`. False: none did. `length`: of the first packet.
    pub(super) fn open_next(
        &self,
        consumer: &mut Consumer<MappedRing>,
        length: Option<usize>,
        held: &mut Held,
    ) -> Result<bool, Corrupt> {
        if length.is_none() {
            self.swamped.store(false, Ordering::Relaxed);
            return Ok(false);
        }
        let mut guard = lock(&self.guard);
        let mut rejected = 0;
        let mut next = Ok(length);
        // It ends: the consumer gives no more than a ring holds before what is taken is released, which is after the call.
        while let Ok(Some(sealed_length)) = next {
            if self.open(&mut **guard, consumer, sealed_length, held) {
                break;
            }
            rejected += 1;
            next = consumer.next_length();
        }
        if rejected > 0 {
            self.rejected.fetch_add(rejected, Ordering::Relaxed);
        }
        self.swamped.store(rejected > 0 && next == Ok(None), Ordering::Relaxed);
        Ok(next?.is_some())
    }

    fn open(
        &self,
        guard: &mut dyn Guard,
        consumer: &mut Consumer<MappedRing>,
        sealed_length: usize,
        held: &mut Held,
    ) -> bool {
        with_sealed(|sealed| {
            take_into(consumer, sealed_length, sealed);
            let Some(length) = sealed_length.checked_sub(self.overhead) else { return false };
            let opened = guard.open(sealed, held.room(length));
            if opened {
                held.fill(length);
                held.unread = true;
            }
            opened
        })
    }
}

fn with_sealed<T>(use_it: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    SEALED.with_borrow_mut(|sealed| {
        let result = use_it(sealed);
        if sealed.capacity() > KEEP {
            *sealed = Vec::new();
        }
        result
    })
}

/// The first `length` bytes, whatever is in them.
fn at_least(bytes: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if bytes.len() < length {
        bytes.resize(length, 0);
    }
    &mut bytes[..length]
}

/// Bytes that were taken out of the ring and not read yet.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    at: usize,
    end: usize,
    /// The next read finds the end of a packet.
    pub(super) end_mark: bool,
    /// It was only decrypted, and nothing of it was read.
    pub(super) unread: bool,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        !self.end_mark && self.at == self.end
    }

    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.at..self.end]
    }

    /// Step over the first bytes of the rest. The buffer is kept for the next packet if `keep`.
    pub(super) fn advance(&mut self, count: usize, keep: bool) {
        self.at += count;
        if self.at == self.end {
            self.at = 0;
            self.end = 0;
            if !keep || self.bytes.capacity() > KEEP {
                self.bytes = Vec::new();
            }
        }
    }

    /// Hold the packet that `fetch` puts into an empty buffer.
    pub(super) fn hold(&mut self, fetch: impl FnOnce(&mut Vec<u8>)) {
        fetch(&mut self.bytes);
        self.fill(self.bytes.len());
    }

    /// Where a packet of `length` goes; `fill` has to follow.
    fn room(&mut self, length: usize) -> &mut [u8] {
        at_least(&mut self.bytes, length)
    }

    fn fill(&mut self, length: usize) {
        self.at = 0;
        self.end = length;
        // Nothing would be left to tell that an empty packet is held.
        self.end_mark = length == 0;
    }
}
