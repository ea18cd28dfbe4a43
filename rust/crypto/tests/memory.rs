//! The page of the keys, and what a forked child can do with a session. A program of its own, without threads.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;

use ouroboros_crypto::{Refused, Rejected, Replay, Role, Suite};

mod common;

use common::{opened, own_pair, sealed, session};

fn main() {
    page_of_the_keys_is_kept_out_of_core_files_and_children();
    child_of_a_fork_refuses();
    child_of_a_fork_makes_sessions_of_its_own();
    println!("memory: ok");
}

/// Whether the limit of this process lets it lock a page.
fn may_lock() -> bool {
    let page = Box::new([0u8; 4096]);
    // SAFETY: the range is that of the box, and locking changes nothing in it.
    unsafe {
        libc::mlock(page.as_ptr().cast(), page.len()) == 0 && libc::munlock(page.as_ptr().cast(), page.len()) == 0
    }
}

/// Mappings with all of these flags: not dumped, emptied on fork and, where that is allowed, locked.
fn protected_pages() -> usize {
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let wanted = if may_lock() { &["dd", "wf", "lo"][..] } else { &["dd", "wf"] };
    let flags = |line: &str| line.split_whitespace().filter(|flag| wanted.contains(flag)).count() == wanted.len();
    let pages = |block: &str| {
        let size = block.lines().find_map(|line| line.strip_prefix("Size:"))?;
        size.trim().trim_end_matches(" kB").parse::<usize>().ok().map(|kilobytes| kilobytes / 4)
    };
    let blocks = maps.split("VmFlags:").collect::<Vec<_>>();
    // The flags of a mapping end its block.
    blocks.windows(2).filter(|pair| flags(pair[1].lines().next().unwrap())).filter_map(|pair| pages(pair[0])).sum()
}

fn page_of_the_keys_is_kept_out_of_core_files_and_children() {
    let first = session(Suite::Aes256Gcm, Role::Allocator, Replay::Reject, 20);
    let before = protected_pages();
    let second = session(Suite::Aes256Gcm, Role::Acceptor, Replay::Reject, 20);
    assert_eq!(protected_pages(), before + 1);
    drop(second);
    assert_eq!(protected_pages(), before);
    drop(first);
    assert_eq!(protected_pages(), before - 1);
}

/// Whether `check` is true in a child.
fn in_child(check: impl FnOnce() -> bool) -> bool {
    // SAFETY: this process has one thread, so the child may do anything.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let good = check();
        // SAFETY: ends the child without the clean-up of its parent.
        unsafe { libc::_exit(i32::from(!good)) };
    }
    let mut status = 0;
    // SAFETY: `child` is ours and `status` a valid place.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status == 0
}

fn child_of_a_fork_refuses() {
    for suite in [Suite::Aes256Gcm, Suite::Aes256Ctr] {
        let (mut near, mut far) = own_pair(suite, 20);
        let packet = sealed(&mut near, b"before");
        let good = in_child(|| {
            let mut out = Vec::new();
            near.seal(b"again", &mut out) == Err(Refused::Forked)
                && near.seal_in_place(&mut [0; 64]) == Err(Refused::Forked)
                && far.open(&packet, &mut out) == Err(Rejected::Forked)
                && out.is_empty()
        });
        assert!(good);
        // The parent goes on.
        assert_eq!(opened(&mut far, &packet), Some(b"before".to_vec()));
        let packet = sealed(&mut near, b"after");
        assert_eq!(opened(&mut far, &packet), Some(b"after".to_vec()));
    }
}

fn child_of_a_fork_makes_sessions_of_its_own() {
    let inherited = own_pair(Suite::Aes128Gcm, 20);
    assert!(in_child(|| {
        drop(inherited);
        let (mut near, mut far) = own_pair(Suite::Aes128Gcm, 20);
        let packet = sealed(&mut near, b"mine");
        opened(&mut far, &packet) == Some(b"mine".to_vec())
    }));
}
