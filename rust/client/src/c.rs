//! What both C libraries do with what C programs give them.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use rustix::process::setsid;

use crate::connection::take_open;
use crate::error::Error;

/// The text at a pointer; None for NULL and for what is no UTF-8.
///
/// # Safety
///
/// The pointer is NULL, or leads to a text that ends with a zero byte and does not change during `'a`.
#[must_use]
pub unsafe fn text<'a>(pointer: *const c_char) -> Option<&'a str> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(pointer) }.to_str().ok()
}

/// The bytes that the kernel drew when this program was executed. Files in /proc have them, too, but not for a program that
/// changed its user.
#[must_use]
pub fn random_of_exec() -> [u8; 16] {
    // SAFETY: it only looks up a number.
    let address = unsafe { libc::getauxval(libc::AT_RANDOM) } as *const [u8; 16];
    // SAFETY: it is NULL, or leads to 16 bytes, which stay for as long as the process lives.
    unsafe { address.as_ref() }.copied().unwrap_or_default()
}

/// The program has rights that whoever started it may not have: its environment is theirs.
#[must_use]
pub fn is_privileged() -> bool {
    // SAFETY: it only looks up a number.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Have the command run in a session without a terminal.
pub(crate) fn in_session_of_its_own(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec it makes one system call, and touches no memory.
    unsafe { command.pre_exec(|| setsid().map(drop).map_err(Into::into)) }
}

const PTHREAD_CANCEL_DISABLE: c_int = 1;

unsafe extern "C-unwind" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// Run what may come to a cancellation point of libc, where the thread must not end: Rust cannot clean up then.
pub fn uncancelled<T>(call: impl FnOnce() -> T) -> T {
    let mut before = 0;
    // SAFETY: both only change a word of this thread. What they unwind for is asynchronous cancellation, which the manual
    // forbids around calls that are not made for it.
    unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut before) };
    let result = call();
    // SAFETY: as above.
    unsafe { pthread_setcancelstate(before, std::ptr::null_mut()) };
    result
}

/// The result of `call`, or `-EIO` when there is a bug of ours in it: a panic must not reach the C program.
pub fn guarded<T: From<c_int>>(call: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| T::from(-libc::EIO))
}

/// Both.
pub fn contained<T: From<c_int>>(call: impl FnOnce() -> T) -> T {
    uncancelled(|| guarded(call))
}

/// The number that a C program gets for an error, negative. With `OUROBOROS_DEBUG` set, standard error gets the reason.
#[must_use]
pub fn failed(error: &Error) -> c_int {
    explain(error);
    -error.number()
}

/// As `failed`, for a call whose refusals have a number of their own.
#[must_use]
pub fn call_failed(error: &Error, refused: c_int) -> c_int {
    explain(error);
    -error.number_of_call(refused)
}

fn explain(error: &Error) {
    static SAID: AtomicBool = AtomicBool::new(false);
    // Without a node nothing works, and the number alone sends people to look in the wrong place.
    let first = matches!(error, Error::Node(_)) && !SAID.swap(true, Ordering::Relaxed);
    if first || std::env::var_os("OUROBOROS_DEBUG").is_some() {
        // Not by way of `std::io`, whose lock a thread of the parent may have held when this process was forked. And it is no
        // reason to fail in another way when nobody takes it.
        let _ = rustix::io::write(rustix::stdio::stderr(), format!("ouroboros: {error}\n").as_bytes());
    }
}

/// Something of which each process has its own: the child of a fork makes it anew, because threads of its parent may have held
/// any lock in there.
pub struct PerProcess<T: 'static> {
    pointer: AtomicPtr<T>,
    prepared: AtomicBool,
    make: fn() -> T,
    in_child: unsafe extern "C" fn(),
}

impl<T: Sync> PerProcess<T> {
    /// `make` makes it when it is first asked for; `in_child`, which has to call `leave`, is called in the child of a fork.
    pub const fn new(make: fn() -> T, in_child: unsafe extern "C" fn()) -> Self {
        PerProcess { pointer: AtomicPtr::new(null_mut()), prepared: AtomicBool::new(false), make, in_child }
    }

    /// That of this process.
    pub fn get(&'static self) -> &'static T {
        self.known().unwrap_or_else(|| self.first())
    }

    /// That of this process, if anybody asked for it before.
    pub fn known(&'static self) -> Option<&'static T> {
        // SAFETY: it is NULL, or was made by `first` and is never freed.
        unsafe { self.pointer.load(Ordering::Acquire).as_ref() }
    }

    #[cold]
    fn first(&'static self) -> &'static T {
        if !self.prepared.swap(true, Ordering::AcqRel) {
            // SAFETY: a function of this library, which takes it with it when it is unloaded. It fails without memory only.
            unsafe { libc::pthread_atfork(None, None, Some(self.in_child)) };
        }
        let made = Box::into_raw(Box::new((self.make)()));
        match self.pointer.compare_exchange(null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: it is ours, and never freed.
            Ok(_) => unsafe { &*made },
            Err(other) => {
                // SAFETY: nobody but us has seen it.
                drop(unsafe { Box::from_raw(made) });
                // SAFETY: another thread was first; it is never freed.
                unsafe { &*other }
            }
        }
    }

    /// In the child of a fork: leave it to the parent. The connections of this library to the node are let go of, and `more`
    /// is given what lets go of other descriptors: a copy of them would hide the parent's end. Does only what is allowed in a
    /// handler of a signal.
    pub fn leave(&'static self, more: impl FnOnce(&dyn Fn(c_int))) {
        self.pointer.store(null_mut(), Ordering::Release);
        // SAFETY: a path that ends with a zero byte.
        let nothing = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        // The numbers stay in use, because what owns them is left behind, not dropped.
        let replace = |descriptor: c_int| {
            // SAFETY: the descriptor belongs to what is left behind; nobody uses it from now on.
            unsafe { libc::dup3(nothing, descriptor, libc::O_CLOEXEC) };
        };
        take_open().for_each(&replace);
        more(&replace);
        // SAFETY: it is ours.
        unsafe { libc::close(nothing) };
    }
}
