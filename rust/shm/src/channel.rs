//! The descriptors of a flow, and the mapping of its memory. Home of the unsafe code.

#![allow(unsafe_code)]

use core::mem::MaybeUninit;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicU32, Ordering};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::io::{Errno, pwrite};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use rustix::thread::futex;

use crate::descriptors::above_standard;
use crate::layout::{CAPACITY, Control, DATA, HOME, MAGIC, MEMORY, RingControl, place, state};
use crate::ring::Memory;

const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// The descriptors of one flow, as the node hands them out: the memory for both sides, and one end of the doorbell for each.
#[derive(Debug)]
pub struct Channel {
    /// The sealed memfd.
    pub memory: OwnedFd,
    /// Doorbell sockets of side 0 and side 1.
    pub bells: [OwnedFd; 2],
}

/// Make the descriptors of a new flow.
pub fn create() -> io::Result<Channel> {
    let memory = above_standard(memfd_create("ouroboros-flow", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?)?;
    ftruncate(&memory, MEMORY as u64)?;
    pwrite(&memory, &MAGIC.to_ne_bytes(), 0)?;
    // The other side can shrink nothing under us: no access to this memory ever faults.
    fcntl_add_seals(&memory, SEALS)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (zero, one) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // A ring starts disarmed, with its token in the socket (see `ring`).
    for bell in [&zero, &one] {
        send(bell, b"!", SendFlags::NOSIGNAL)?;
    }
    Ok(Channel { memory, bells: [above_standard(zero)?, above_standard(one)?] })
}

/// The mapped memory of one flow.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is plain memory; all access goes through atomics, or through copies by the one holder of a ring half.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Map the memory of a flow; refuse a descriptor that is not one made by `create`.
    pub fn new(memory: impl AsFd) -> io::Result<Self> {
        Self::of_length(memory, MEMORY)
    }

    fn of_length(memory: impl AsFd, length: usize) -> io::Result<Self> {
        let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        if fstat(&memory)?.st_size != MEMORY as i64 {
            return Err(wrong("flow memory has the wrong size"));
        }
        if !fcntl_get_seals(&memory)?.contains(SEALS) {
            return Err(wrong("flow memory is not sealed against resizing"));
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing of ours.
        let base =
            unsafe { mmap(null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &memory, 0)? };
        let base = NonNull::new(base.cast()).ok_or_else(|| wrong("mapped at address 0"))?;
        let mapping = Mapping { base, length };
        if mapping.control().magic.load(Ordering::Relaxed) != MAGIC {
            return Err(wrong("flow memory is of another version"));
        }
        Ok(mapping)
    }

    /// The control page.
    pub fn control(&self) -> &Control {
        // SAFETY: the mapping is page-aligned, at least a page long and lives as long as self; `Control` consists of
        // atomics only, for which concurrent writes by another process are no undefined behaviour.
        unsafe { self.base.cast::<Control>().as_ref() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: we mapped exactly this range, and every pointer into it is owned together with an Arc of self.
        let result = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
        debug_assert!(result.is_ok());
    }
}

/// One ring of a mapped flow.
#[derive(Debug)]
pub struct MappedRing {
    mapping: Arc<Mapping>,
    index: usize,
}

impl MappedRing {
    /// Ring 0 or 1 of the mapping, which must be a whole one.
    pub fn new(mapping: Arc<Mapping>, index: usize) -> Self {
        assert!(index < 2 && mapping.length == MEMORY);
        MappedRing { mapping, index }
    }

    /// Where offset `at` of the ring is, and for how many bytes it goes on there.
    #[inline]
    fn place(&self, at: usize) -> (*mut u8, usize) {
        let (offset, run) = place(self.index, at);
        debug_assert!(offset + run <= MEMORY);
        // SAFETY: `place` gives ranges within MEMORY, the length of the mapping.
        (unsafe { self.mapping.base.as_ptr().add(offset) }, run)
    }
}

impl Memory for MappedRing {
    const CAPACITY: usize = CAPACITY;
    const HOME: usize = HOME;
    const CHECK: usize = 16 << 10;

    #[inline]
    fn control(&self) -> &RingControl {
        &self.mapping.control().rings[self.index]
    }

    #[inline]
    fn write(&self, mut at: usize, mut source: &[u8]) {
        while !source.is_empty() {
            let (target, run) = self.place(at);
            let (now, later) = source.split_at(run.min(source.len()));
            // SAFETY: `place` gave `run` bytes outside of Rust's memory, so no reference overlaps. The other process may
            // read or write them meanwhile: it sees garbage, we never read back what we wrote.
            unsafe { target.copy_from_nonoverlapping(now.as_ptr(), now.len()) };
            at = (at + now.len()) % CAPACITY;
            source = later;
        }
    }

    #[inline]
    fn read(&self, mut at: usize, mut target: &mut [MaybeUninit<u8>]) {
        while !target.is_empty() {
            let (source, run) = self.place(at);
            let (now, later) = target.split_at_mut(run.min(target.len()));
            // SAFETY: as in `write`. The bytes are copied once and only the copy is used.
            unsafe { source.copy_to_nonoverlapping(now.as_mut_ptr().cast(), now.len()) };
            at = (at + now.len()) % CAPACITY;
            target = later;
        }
    }

    #[inline]
    fn length_at(&self, at: usize) -> u32 {
        let (source, run) = self.place(at);
        assert!(run >= 4 && at.is_multiple_of(4));
        // SAFETY: `place` gave at least 4 bytes, aligned as the parts of the memory are; volatile, so that the value is
        // read once and not again after the checks.
        unsafe { source.cast::<u32>().read_volatile() }
    }
}

/// Wake everybody who waits for space in a ring, in every process.
pub(crate) fn wake_writers(space: &AtomicU32) {
    space.fetch_add(1, Ordering::Release);
    // Waking cannot fail in a way that anybody could act on: the word is mapped and aligned.
    let _ = futex::wake(space, futex::Flags::empty(), i32::MAX as u32);
}

/// Tell the other side that the process of `side` is gone. For the node, which keeps only the memory descriptor.
pub fn mark_dead(memory: impl AsFd, side: usize) -> io::Result<()> {
    if side > 1 {
        return Err(Errno::INVAL.into());
    }
    let mapping = Mapping::of_length(memory, DATA)?;
    let control = mapping.control();
    control.state[side].fetch_or(state::DEAD, Ordering::Release);
    for ring in &control.rings {
        wake_writers(&ring.wait.space);
    }
    Ok(())
}
