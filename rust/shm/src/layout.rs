//! What the shared memory of a flow holds: a page of control words, then the data of both rings.
//!
//! ```text
//! 0        Control: magic, state of either side, control words of ring 0 and ring 1
//!          the first HOME bytes of ring 0, which side 0 writes and side 1 reads
//!          the first HOME bytes of ring 1, the other way
//! 4096     ring 0, CAPACITY bytes, of which the first HOME are not used
//!          ring 1, likewise
//! ```
//!
//! So a flow with a short backlog of small packets lives in one page: one to pay for, and one for the processor to find.
//! All zero (a fresh memfd) is a valid start. Words that different sides write often live 128 bytes apart, because adjacent
//! cache lines are fetched in pairs.

use crate::sync::{AtomicU32, AtomicU64};

/// Bytes of data in one direction. Pages that were never used cost nothing.
pub const CAPACITY: usize = 2 << 20;

/// The longest packet, bytes.
pub const MAX_PACKET: usize = 1 << 20;

/// First word of the memory: "OUROFLW" and the version of this layout.
pub const MAGIC: u64 = u64::from_be_bytes(*b"OUROFLW\x01");

/// Size of the control page; behind it come the rings.
pub const DATA: usize = 4096;

/// Bytes of a ring that are in the control page.
pub const HOME: usize = (DATA - size_of::<Control>()) / 2 / 8 * 8;

/// Size of the whole memory of a flow.
pub const MEMORY: usize = DATA + 2 * CAPACITY;

/// State bits of one side. A side sets its own; the node sets `DEAD` for a side whose process is gone.
pub mod state {
    /// The side deallocated the flow.
    pub const CLOSED: u32 = 1;
    /// The process of the side died.
    pub const DEAD: u32 = 2;
    /// The side set the Down flag; it can be taken back.
    pub const DOWN: u32 = 4;
    /// The side is write-only: packets to it are refused.
    pub const REFUSES: u32 = 8;
}

/// Written by the producer of a ring.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct ProducerLine {
    /// Position up to which data is valid; positions only grow, their offset is the position modulo the capacity.
    pub tail: AtomicU64,
    /// Packets published so far.
    pub pushed: AtomicU64,
    /// Position from which the producer went on at the next start of the data, last time that it found the ring empty.
    pub skip: AtomicU64,
}

/// Written by the consumer of a ring.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct ConsumerLine {
    /// Position up to which data was read.
    pub head: AtomicU64,
    /// Packets read so far.
    pub popped: AtomicU64,
}

/// Who waits. Read for every packet, written only when somebody sleeps.
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub struct WaitLine {
    /// 1: the reader wants the doorbell rung at the next packet. 0: it was rung, and the token is still in the socket.
    pub reader_armed: AtomicU32,
    /// Futex word of the writers that wait for space; counts wake-ups.
    pub space: AtomicU32,
    /// 1: a writer wants the doorbell rung when writers are woken. 0: not, or it was.
    pub writer_armed: AtomicU32,
    /// Head position at which waiting writers want to be woken; 0 when none waits.
    pub wake_at: AtomicU64,
}

/// Control words of one direction.
#[repr(C)]
#[derive(Debug, Default)]
pub struct RingControl {
    /// Words of the writing side.
    pub producer: ProducerLine,
    /// Words of the reading side.
    pub consumer: ConsumerLine,
    /// Words of whoever sleeps.
    pub wait: WaitLine,
}

/// The control page.
#[repr(C)]
#[derive(Debug, Default)]
pub struct Control {
    /// `MAGIC`.
    pub magic: AtomicU64,
    /// State bits of side 0 and side 1.
    pub state: [AtomicU32; 2],
    /// Ring 0 and ring 1.
    pub rings: [RingControl; 2],
}

/// Where offset `at` of a ring is in the memory, and for how many bytes it goes on there.
#[inline]
pub const fn place(ring: usize, at: usize) -> (usize, usize) {
    assert!(ring < 2 && at < CAPACITY);
    if at < HOME {
        (size_of::<Control>() + ring * HOME + at, HOME - at)
    } else {
        (DATA + ring * CAPACITY + at, CAPACITY - at)
    }
}
