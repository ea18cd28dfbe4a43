//! Counters in a file, which others read while they change, without asking. There is one writer, who maps the file and never
//! makes it shorter.
//!
//! ```text
//! 0        header: see `word`, and behind those words the names of the counters, a line for each kind: its own name, and
//!          those of its values in order, with spaces between
//! 4096     slots of 512 bytes: a sequence number, odd while the slot is being written; the id of what counts; its kind, 256 if
//!          it is over, 65536 times the number of values; the values
//! ```
//!
//! All are words of 8 bytes, least significant byte first. A slot belongs to a place of one kind, the lower half of its ids,
//! and keeps the last values until another id has the place. The file grows by whole MiB.

#![allow(unsafe_code)]

use core::ptr::{NonNull, null_mut};
use core::slice;
use core::sync::atomic::{AtomicU64, Ordering, fence};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, pwrite};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// First word of the file.
pub const MAGIC: u64 = u64::from_le_bytes(*b"OUROCNTS");
/// Of this layout.
pub const VERSION: u64 = 1;
/// Bytes of the header.
pub const HEADER: usize = 4096;
/// Bytes of a slot.
pub const SLOT: usize = 512;
/// The file grows by so many bytes.
pub const BLOCK: usize = 1 << 20;
/// Values that a slot has room for.
pub const VALUES: usize = WORDS - 3;

const WORDS: usize = SLOT / 8;
const NONE: usize = usize::MAX;

/// The words of the header, by their places.
pub mod word {
    /// `MAGIC`, which is written last.
    pub const MAGIC: usize = 0;
    /// `VERSION`.
    pub const VERSION: usize = 1;
    /// `HEADER`.
    pub const HEADER: usize = 2;
    /// `SLOT`.
    pub const SLOT: usize = 3;
    /// Slots that are in use.
    pub const COUNT: usize = 4;
    /// A number that tells this writer from those before it.
    pub const INSTANCE: usize = 5;
    /// Its process.
    pub const PID: usize = 6;
    /// When something was published last, nanoseconds since 1970.
    pub const UPDATED: usize = 7;
    /// Things that have no slot, because the file could not grow.
    pub const MISSING: usize = 8;
    /// Bytes of the names, which follow.
    pub const NAMES: usize = 9;
}

/// A part of the file, mapped.
#[derive(Debug)]
struct Block(NonNull<u8>);

// SAFETY: the mapping is plain memory, which is accessed by atomics only.
unsafe impl Send for Block {}

impl Block {
    /// Make the file longer by one block, whose bytes are zero, and map that.
    fn new(file: &OwnedFd, number: usize) -> io::Result<Self> {
        let offset = (number * BLOCK) as u64;
        // So that no access finds the disk full.
        match fallocate(file, FallocateFlags::empty(), offset, BLOCK as u64) {
            Err(Errno::OPNOTSUPP) => write_zeros(file, offset)?,
            result => result?,
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing of ours.
        let base =
            unsafe { mmap(null_mut(), BLOCK, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, offset)? };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Block(base))
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, BLOCK bytes long and lives as long as self; every bit pattern is a valid
        // atomic, for which writes by another process are no undefined behaviour.
        unsafe { slice::from_raw_parts(self.0.as_ptr().cast(), BLOCK / 8) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: we mapped exactly this range, and what was made from it borrowed from self.
        let result = unsafe { munmap(self.0.as_ptr().cast(), BLOCK) };
        debug_assert!(result.is_ok());
    }
}

fn write_zeros(file: &OwnedFd, offset: u64) -> io::Result<()> {
    let zeros = vec![0; BLOCK];
    let mut done = 0;
    while done < BLOCK {
        done += pwrite(file, &zeros[done..], offset + done as u64)?;
    }
    Ok(())
}

/// The writer.
#[derive(Debug)]
pub struct Board {
    file: OwnedFd,
    blocks: Vec<Block>,
    /// By kind and place, the number of the slot.
    places: Vec<Vec<usize>>,
    count: usize,
    missing: u64,
}

impl Board {
    /// Begin an empty file. `kinds`: the name of each, and of its values. Raises what the file system says, and `InvalidInput`
    /// for names that do not fit.
    pub fn new(file: OwnedFd, instance: u64, kinds: &[(&str, Vec<&str>)]) -> io::Result<Self> {
        let lines: Vec<_> = kinds.iter().map(|(kind, names)| [&[*kind], &names[..]].concat().join(" ")).collect();
        let names = lines.join("\n");
        let fits =
            kinds.iter().all(|(_, names)| names.len() <= VALUES) && names.len() <= HEADER - 8 * (word::NAMES + 1);
        if !fits {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many counters for a slot"));
        }
        let block = Block::new(&file, 0)?;
        let words = block.words();
        let pid = u64::from(std::process::id());
        for (place, value) in [
            (word::VERSION, VERSION),
            (word::HEADER, HEADER as u64),
            (word::SLOT, SLOT as u64),
            (word::INSTANCE, instance),
            (word::PID, pid),
            (word::UPDATED, wall()),
            (word::NAMES, names.len() as u64),
        ] {
            words[place].store(value, Ordering::Relaxed);
        }
        for (place, chunk) in words[word::NAMES + 1..].iter().zip(names.as_bytes().chunks(8)) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            place.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
        words[word::MAGIC].store(MAGIC, Ordering::Release);
        let places = vec![Vec::new(); kinds.len()];
        Ok(Board { file, blocks: vec![block], places, count: 0, missing: 0 })
    }

    /// Write what something of a kind has counted. What finds no room is missing.
    pub fn publish(&mut self, kind: usize, id: u64, over: bool, values: &[u64]) {
        let Some(slot) = self.slot(kind, id as u32 as usize) else { return };
        let (block, at) = place(slot);
        let Some(words) = self.blocks.get(block).and_then(|block| block.words().get(at..at + WORDS)) else { return };
        let [sequence, name, about, room @ ..] = words else { return };
        let before = sequence.load(Ordering::Relaxed);
        sequence.store(before.wrapping_add(1), Ordering::Relaxed);
        // Whoever sees something of what follows sees that number, too.
        fence(Ordering::Release);
        name.store(id, Ordering::Relaxed);
        about.store((kind + (usize::from(over) << 8) + (values.len() << 16)) as u64, Ordering::Relaxed);
        room.iter().zip(values).for_each(|(word, value)| word.store(*value, Ordering::Relaxed));
        sequence.store(before.wrapping_add(2), Ordering::Release);
    }

    /// All of that was at this time.
    pub fn note_time(&mut self) {
        self.head(word::UPDATED, wall());
    }

    /// The slot of a place, which gets one if it has none.
    fn slot(&mut self, kind: usize, place_of: usize) -> Option<usize> {
        let places = self.places.get_mut(kind)?;
        if places.len() <= place_of {
            places.resize(place_of + 1, NONE);
        }
        if let Some(slot) = places.get(place_of).filter(|slot| **slot != NONE) {
            return Some(*slot);
        }
        if place(self.count).0 >= self.blocks.len() {
            if self.missing == 0
                && let Ok(block) = Block::new(&self.file, self.blocks.len())
            {
                self.blocks.push(block);
            } else {
                // It is not tried again for each of them.
                self.missing += 1;
                self.head(word::MISSING, self.missing);
                return None;
            }
        }
        let slot = self.count;
        self.count += 1;
        *self.places.get_mut(kind)?.get_mut(place_of)? = slot;
        self.head(word::COUNT, self.count as u64);
        Some(slot)
    }

    fn head(&self, place: usize, value: u64) {
        if let Some(word) = self.blocks.first().and_then(|block| block.words().get(place)) {
            word.store(value, Ordering::Release);
        }
    }
}

/// The block of a slot, and its first word there.
fn place(slot: usize) -> (usize, usize) {
    let at = HEADER + slot * SLOT;
    (at / BLOCK, at % BLOCK / 8)
}

/// Nanoseconds since 1970.
fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64)
}
