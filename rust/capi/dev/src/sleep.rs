//! Where a thread sleeps, and may be cancelled.
//!
//! Nothing in these functions or in those that call them has to be dropped: see the head of the crate.

use std::cell::RefCell;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use libc::{nfds_t, pollfd, sigset_t, timespec};

// As libc has them, but for the ABI: they unwind when the thread is cancelled.
unsafe extern "C-unwind" {
    fn ppoll(fds: *mut pollfd, count: nfds_t, limit: *const timespec, mask: *const sigset_t) -> c_int;
    fn pthread_testcancel();
}

/// Descriptors to sleep for; -1 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bells {
    /// The doorbell: of this one a hang-up is noted.
    pub first: c_int,
    pub second: c_int,
}

/// The reason of a thread to sleep: a flow or a set.
pub trait Sleeper: Send + Sync {
    /// The first of its descriptors was found to be hung up.
    fn on_hang_up(&self) {}
}

/// Values that must outlive the sleep of this thread, and end with the thread when it is cancelled.
#[derive(Default)]
struct Parked {
    sleeper: Option<Arc<dyn Sleeper>>,
    /// Kept when the sleep is over: a thread that goes on reading its flow need not make it anew.
    news: Option<Arc<OwnedFd>>,
    /// How the last sleep in `until_readable` ended.
    hung_up: bool,
}

thread_local! {
    static PARKED: RefCell<Parked> = const { RefCell::new(Parked { sleeper: None, news: None, hung_up: false }) };
}

/// Keep a flow or a set over the next sleep. False: this thread is ending and cannot.
pub fn park(sleeper: Arc<dyn Sleeper>) -> bool {
    PARKED.try_with(|parked| parked.borrow_mut().sleeper = Some(sleeper)).is_ok()
}

/// Keep what else a flow sleeps for. False: as above.
pub fn park_news(news: Option<Arc<OwnedFd>>) -> bool {
    PARKED.try_with(|parked| parked.borrow_mut().news = news).is_ok()
}

/// Let go of what was kept.
pub fn unpark() {
    let take = |parked: &RefCell<Parked>| {
        let mut parked = parked.borrow_mut();
        (parked.sleeper.take(), std::mem::take(&mut parked.hung_up))
    };
    if let Ok((Some(sleeper), true)) = PARKED.try_with(take) {
        sleeper.on_hang_up();
    }
}

/// Act on a cancellation that somebody asked for.
pub fn cancellation_point() {
    // SAFETY: no frame of ours that it unwinds has anything to drop.
    unsafe { pthread_testcancel() };
}

/// Sleep until a descriptor is readable or hung up, the deadline is over or a signal arrived.
///
/// # Safety
///
/// No frame from here to the C program may have anything to drop.
pub unsafe fn until_readable(bells: Bells, deadline: Option<Instant>) {
    let first = pollfd { fd: bells.first, events: libc::POLLIN | libc::POLLRDHUP, revents: 0 };
    let mut polled = [first, pollfd { fd: bells.second, events: libc::POLLIN, revents: 0 }];
    let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
    let left = left.map(|left| timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
    let limit = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: two entries, and a time or NULL.
    unsafe { ppoll(polled.as_mut_ptr(), 2, limit, std::ptr::null()) };
    if polled[0].revents & (libc::POLLHUP | libc::POLLRDHUP | libc::POLLERR) != 0 {
        let _ = PARKED.try_with(|parked| parked.borrow_mut().hung_up = true);
    }
}

/// Sleep until the node has said something on the socket, or it is that time. True: a signal arrived before, and its handler was
/// not made for calls to go on (SA_RESTART).
///
/// # Safety
///
/// As for `until_readable`.
pub unsafe fn until_answered(socket: c_int, end: Option<Instant>) -> bool {
    let mut polled = pollfd { fd: socket, events: libc::POLLIN, revents: 0 };
    let left = end.map(|end| end.saturating_duration_since(Instant::now()));
    let left = left.map(|left| timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) });
    let limit = left.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: one entry, and a time or NULL.
    let result = unsafe { ppoll(&raw mut polled, 1, limit, std::ptr::null()) };
    // SAFETY: it is this thread's.
    result < 0 && unsafe { *libc::__errno_location() } == libc::EINTR && some_handler_interrupts()
}

/// Whether a signal of this process has a handler that was not made for calls to go on. A call with a time limit is interrupted
/// by all of them, and is not told by which.
fn some_handler_interrupts() -> bool {
    (1..=64).any(|number| {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: there is room for what is set.
        let known = unsafe { libc::sigaction(number, std::ptr::null(), action.as_mut_ptr()) } == 0;
        // SAFETY: all zero is a valid one.
        let action = unsafe { action.assume_init() };
        let handled = known && ![libc::SIG_DFL, libc::SIG_IGN].contains(&action.sa_sigaction);
        handled && action.sa_flags & libc::SA_RESTART == 0
    })
}
