//! Memory for the keys of one flow. All unsafe code of the crate.
//!
//! A page of its own: locked (not swapped out), not in core files, empty in the child of a fork, wiped before it is given
//! back. Locking is tried and not insisted on: a limit on locked memory is no reason to refuse a flow.

#![allow(unsafe_code)]

use core::ptr::{NonNull, addr_of, null_mut};
use std::io;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous, munmap};
use zeroize::Zeroize;

/// Keys that a page has room for.
pub(crate) const KEYS: usize = 100;

/// The first word of the page; zero after a fork.
const OURS: u64 = u64::from_be_bytes(*b"OUROKEYS");

/// The contents of the page.
#[repr(C)]
pub(crate) struct Secrets {
    ours: u64,
    /// The salt of the rotation.
    pub(crate) salt: [u8; 32],
    /// Keys, the one of the current epoch first.
    pub(crate) keys: [[u8; 32]; KEYS],
}

const SIZE: usize = size_of::<Secrets>();

/// One such page.
pub(crate) struct Vault {
    page: NonNull<Secrets>,
    /// Whose it is, where the kernel does not empty it in a child.
    owner: Option<u32>,
}

// SAFETY: the page is plain memory that belongs to the vault alone; it is reached through `&self` and `&mut self` as a
// field would be.
unsafe impl Send for Vault {}
// SAFETY: as above; nothing changes it through `&self`.
unsafe impl Sync for Vault {}

impl Vault {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing of ours.
        let page = unsafe { mmap_anonymous(null_mut(), SIZE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)? };
        let Some(page) = NonNull::new(page.cast::<Secrets>()) else {
            return Err(io::Error::other("mapped at address 0"));
        };
        let mut vault = Vault { page, owner: None };
        if !vault.protect() {
            vault.owner = Some(std::process::id());
        }
        vault.secrets_mut().ours = OURS;
        Ok(vault)
    }

    /// Whether the kernel empties it in a child.
    fn protect(&self) -> bool {
        let start = self.page.as_ptr().cast();
        // SAFETY: the range is the whole of our own mapping, and none of the three takes anything from it in this process.
        unsafe {
            let _ = mlock(start, SIZE);
            let _ = madvise(start, SIZE, Advice::LinuxDontDump);
            madvise(start, SIZE, Advice::LinuxWipeOnFork).is_ok()
        }
    }

    /// False in the child of a fork.
    pub(crate) fn is_ours(&self) -> bool {
        // SAFETY: within our mapping, aligned; volatile, as the compiler cannot know what a fork does to it.
        let ours = unsafe { addr_of!((*self.page.as_ptr()).ours).read_volatile() };
        ours == OURS && self.owner.is_none_or(|owner| owner == std::process::id())
    }

    pub(crate) fn secrets_mut(&mut self) -> &mut Secrets {
        // SAFETY: the page is mapped for as long as self, at least SIZE bytes, aligned to a page; every bit pattern,
        // zeros among them, is a valid `Secrets`; this is the only way to a reference, so it is the only one.
        unsafe { self.page.as_mut() }
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        let secrets = self.secrets_mut();
        secrets.salt.zeroize();
        secrets.keys.zeroize();
        // SAFETY: we mapped exactly this range, and no reference into it outlives self.
        let result = unsafe { munmap(self.page.as_ptr().cast(), SIZE) };
        debug_assert!(result.is_ok());
    }
}
