//! The flags of a program for its end of a flow, and their meaning for its calls.

use std::sync::atomic::{AtomicU32, Ordering};

use ouroboros_shm::endpoint::{Endpoint, Error, Reader, Writer};
use ouroboros_shm::layout::state;

use crate::limit::Timeout;

const ACCESS: u32 = 0o3;
const READ_ONLY: u32 = 0o0;
const WRITE_ONLY: u32 = 0o1;
const DOWN: u32 = 0o4;
const NON_BLOCKING_READ: u32 = 0o1000;
const NON_BLOCKING_WRITE: u32 = 0o2000;
const NO_PARTIAL_READ: u32 = 0o10000;
/// ReadWrite and NoPartialWrite, the start of every flow (`flows.md` 6.2).
const DEFAULT_FLAGS: u32 = 0o20002;

/// Flags and time limits of one end. Flags are the numbers of `FlowProperties` and of `fccntl.h`.
#[derive(Debug)]
pub struct Properties {
    flags: AtomicU32,
    /// For reading.
    pub receive_timeout: Timeout,
    /// For writing.
    pub send_timeout: Timeout,
}

impl Default for Properties {
    fn default() -> Self {
        Properties {
            flags: AtomicU32::new(DEFAULT_FLAGS),
            receive_timeout: Timeout::new(),
            send_timeout: Timeout::new(),
        }
    }
}

/// Why flags were not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// Write-only and read-write exclude each other.
    Access,
    /// The flow is not there any more.
    Flow(Error),
}

impl Properties {
    /// The flags.
    #[inline]
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// Replace all flags, and tell the peer what concerns it.
    pub fn set_flags(&self, flags: u32, endpoint: &Endpoint) -> Result<(), Unfit> {
        if flags & ACCESS == ACCESS {
            return Err(Unfit::Access);
        }
        let down = if flags & DOWN != 0 { state::DOWN } else { 0 };
        let refuses = if flags & ACCESS == WRITE_ONLY { state::REFUSES } else { 0 };
        endpoint.set_state(down | refuses).map_err(Unfit::Flow)?;
        self.flags.store(flags, Ordering::Relaxed);
        Ok(())
    }

    /// The program may read.
    #[inline]
    pub fn may_read(&self) -> bool {
        self.flags() & ACCESS != WRITE_ONLY
    }

    /// The program may write.
    #[inline]
    pub fn may_write(&self) -> bool {
        self.flags() & ACCESS != READ_ONLY
    }

    /// A read waits for a packet.
    #[inline]
    pub fn read_waits(&self) -> bool {
        self.flags() & NON_BLOCKING_READ == 0
    }

    /// A write waits for room.
    #[inline]
    pub fn write_waits(&self) -> bool {
        self.flags() & NON_BLOCKING_WRITE == 0
    }

    /// How many bytes a read takes of a packet of `length` that has room for `room`; None when it would cut the packet and
    /// must not.
    #[inline]
    pub fn portion(&self, length: usize, room: usize) -> Option<usize> {
        (length <= room || self.cuts()).then_some(length.min(room))
    }

    /// After a read that had room for `room` bytes, and took a packet of `length`: if that was exactly its length, an empty
    /// read follows, which tells that nothing is left of the packet.
    #[inline]
    pub fn mark_end(&self, reader: &mut Reader<'_>, length: usize, room: usize) {
        if length == room && length > 0 && self.cuts() {
            reader.mark_end();
        }
    }

    #[inline]
    fn cuts(&self) -> bool {
        self.flags() & NO_PARTIAL_READ == 0
    }
}

/// Write a packet if there is room for it. An empty one is a keepalive on every layer, and is not sent.
#[inline]
pub fn stage(writer: &mut Writer<'_>, packet: &[u8]) -> Result<bool, Error> {
    if packet.is_empty() { Ok(true) } else { writer.stage(packet) }
}
