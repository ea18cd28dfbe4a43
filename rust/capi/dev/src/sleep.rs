//! Where a thread sleeps, and may be cancelled.
//!
//! Nothing in these functions or in those that call them has to be dropped: see the head of the crate.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use libc::{nfds_t, pollfd, sigset_t, size_t, ssize_t, timespec};

use crate::flow::Flow;

// As libc has them, but for the ABI: they unwind when the thread is cancelled.
unsafe extern "C-unwind" {
    fn ppoll(fds: *mut pollfd, count: nfds_t, limit: *const timespec, mask: *const sigset_t) -> c_int;
    fn recv(socket: c_int, buffer: *mut c_void, length: size_t, flags: c_int) -> ssize_t;
    fn pthread_testcancel();
}

/// Descriptors to sleep for; -1 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bells {
    /// That of which a hang-up is noted.
    pub first: c_int,
    pub second: c_int,
}

/// What must outlive the sleep of this thread, and ends with the thread when it is cancelled.
#[derive(Default)]
struct Parked {
    flow: Option<Arc<Flow>>,
    /// Kept when the sleep is over: a thread that goes on reading its flow need not make it anew.
    news: Option<Arc<OwnedFd>>,
    set: Option<Arc<dyn Any + Send + Sync>>,
    /// How the last sleep in `until_readable` ended.
    hung_up: bool,
}

thread_local! {
    static PARKED: RefCell<Parked> = const { RefCell::new(Parked { flow: None, news: None, set: None, hung_up: false }) };
}

/// Keep a flow, and what else it sleeps for, over the next sleep. False: this thread is ending and cannot.
pub fn park_flow(flow: Arc<Flow>, news: Option<Arc<OwnedFd>>) -> bool {
    let park = |parked: &RefCell<Parked>| {
        let mut parked = parked.borrow_mut();
        (parked.flow, parked.news) = (Some(flow), news);
    };
    PARKED.try_with(park).is_ok()
}

/// Keep a set over the next sleep. False: this thread is ending and cannot.
pub fn park_set(set: Arc<dyn Any + Send + Sync>) -> bool {
    PARKED.try_with(|parked| parked.borrow_mut().set = Some(set)).is_ok()
}

/// Let go of what was kept.
pub fn unpark() {
    let Ok((flow, set, hung_up)) = PARKED.try_with(|parked| {
        let mut parked = parked.borrow_mut();
        (parked.flow.take(), parked.set.take(), std::mem::take(&mut parked.hung_up))
    }) else {
        return;
    };
    if let Some(flow) = flow.filter(|_| hung_up) {
        flow.endpoint.note_hang_up();
    }
    drop(set);
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

/// Sleep until the node has said something on the socket. True: a signal arrived before, and its handler was not made for
/// calls to go on (SA_RESTART).
///
/// # Safety
///
/// As for `until_readable`.
pub unsafe fn until_answered(socket: c_int) -> bool {
    let mut byte = 0u8;
    // A look that takes nothing: bytes and descriptors are left for whoever parses them.
    // SAFETY: there is room for one byte.
    let result = unsafe { recv(socket, (&raw mut byte).cast(), 1, libc::MSG_PEEK) };
    // SAFETY: it is this thread's.
    result < 0 && unsafe { *libc::__errno_location() } == libc::EINTR
}
