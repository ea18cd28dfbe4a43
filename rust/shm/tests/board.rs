//! What somebody reads who only has the file.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)]

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ouroboros_shm::board::{BLOCK, Board, HEADER, SLOT, word};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, memfd_create};
use rustix::io::pread;

fn file() -> OwnedFd {
    memfd_create("board", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap()
}

fn board(file: &OwnedFd) -> Board {
    Board::new(file.try_clone().unwrap(), 7, &[("layer", vec!["received"]), ("flow", vec!["sent", "lost"])]).unwrap()
}

fn word(file: &OwnedFd, at: usize) -> u64 {
    let mut bytes = [0; 8];
    assert_eq!(pread(file, &mut bytes, at as u64).unwrap(), 8);
    u64::from_le_bytes(bytes)
}

/// Sequence, id, the word that says what it is, and two values.
fn slot(file: &OwnedFd, number: usize) -> [u64; 5] {
    std::array::from_fn(|at| word(file, HEADER + number * SLOT + 8 * at))
}

#[test]
fn a_slot_belongs_to_a_place_and_keeps_its_last_values() {
    let file = file();
    let mut board = board(&file);
    board.publish(1, 5, false, &[10, 20]);
    board.publish(0, 5, false, &[30]);
    board.publish(1, 5, true, &[11, 21]);
    assert_eq!(word(&file, 8 * word::COUNT), 2);
    assert_eq!(slot(&file, 0), [4, 5, 1 + (1 << 8) + (2 << 16), 11, 21]);
    assert_eq!(slot(&file, 1), [2, 5, 1 << 16, 30, 0]);
    // The next that has the place.
    board.publish(1, (1 << 32) + 5, false, &[1, 2]);
    assert_eq!(slot(&file, 0), [6, (1 << 32) + 5, 1 + (2 << 16), 1, 2]);
    assert_eq!(word(&file, 8 * word::COUNT), 2);
}

#[test]
fn it_says_what_the_values_are_called() {
    let file = file();
    let _board = board(&file);
    let mut names = vec![0; word(&file, 8 * word::NAMES) as usize];
    pread(&file, &mut names[..], 8 * (word::NAMES as u64 + 1)).unwrap();
    assert_eq!(String::from_utf8(names).unwrap(), "layer received\nflow sent lost");
    assert_eq!(word(&file, 8 * word::INSTANCE), 7);
}

#[test]
fn the_file_grows_by_blocks_and_what_finds_no_room_is_counted() {
    let file = file();
    let mut board = board(&file);
    let fit = (2 * BLOCK - HEADER) / SLOT;
    (0..fit as u64).for_each(|id| board.publish(1, id, false, &[id, 2 * id]));
    assert_eq!(fstat(&file).unwrap().st_size, 2 * BLOCK as i64);
    assert_eq!(slot(&file, fit - 1)[3..], [fit as u64 - 1, 2 * fit as u64 - 2]);
    fcntl_add_seals(&file, SealFlags::GROW).unwrap();
    (0..3).for_each(|more| board.publish(1, fit as u64 + more, false, &[1, 1]));
    assert_eq!((word(&file, 8 * word::COUNT), word(&file, 8 * word::MISSING)), (fit as u64, 3));
    board.publish(1, 3, false, &[9, 9]);
    assert_eq!(slot(&file, 3)[3..], [9, 9]);
}

#[test]
fn too_many_counters_are_refused() {
    let names = vec!["x"; 62];
    assert!(Board::new(file(), 0, &[("flow", names)]).is_err());
    let long = "x".repeat(HEADER);
    assert!(Board::new(file(), 0, &[("flow", vec![&long])]).is_err());
}

/// Two copies that are the same, with an even sequence number, were written in one go.
#[test]
fn whoever_reads_twice_knows_what_was_being_written() {
    let file = file();
    let mut board = board(&file);
    board.publish(1, 0, false, &[0, 0]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            (1..300_000).for_each(|number| board.publish(1, 0, false, &[number, 3 * number]));
            done.store(true, Ordering::Relaxed);
        });
        let (mut last, mut whole) = (0, 0);
        while !done.load(Ordering::Relaxed) || whole == 0 {
            let mut copies = [[0; SLOT]; 2];
            copies.iter_mut().for_each(|copy| assert_eq!(pread(&file, copy, HEADER as u64).unwrap(), SLOT));
            let words: Vec<_> =
                copies[0].chunks(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap())).collect();
            if copies[0] == copies[1] && words[0] % 2 == 0 {
                assert_eq!(words[4], 3 * words[3]);
                assert!(words[3] >= last);
                (last, whole) = (words[3], whole + 1);
            }
        }
    });
}
