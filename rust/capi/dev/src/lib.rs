//! `libouroboros-dev` for C programs, on our node: the names, numbers and layouts of version 0.23 of the prototype.
//!
//! Read bottom to top: `sleep` (where a thread may be cancelled), `flow` (one flow), `types` (what C
//! passes), `table` (the descriptors of the process), `set` (flow sets and event queues), `process` (fork and exit), `request`
//! (alloc, accept, join). This file has the functions themselves.
//!
//! # Unsafe code
//!
//! Pointers come from C, and are trusted to lead to what the header says or to be NULL. Flow sets and queues are handed out as
//! numbers that look like pointers, so that a stale one is an error and no more.
//!
//! A thread that sleeps here may be cancelled: `pthread_cancel` then unwinds it from within `sleep`. So an exported function
//! holds nothing that has to be dropped while it sleeps: each is a loop around steps, which return before the sleep, and what
//! must stay alive meanwhile is parked in a thread-local. Within a step that may reach a cancellation point of libc,
//! cancellation is switched off.

mod flow;
mod process;
mod request;
mod set;
mod sleep;
mod table;
mod types;

use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::slice;

use libc::{size_t, ssize_t, timespec};
use ouroboros_client::c::{contained, guarded, text, uncancelled};
use ouroboros_client::error::ENAME;
use ouroboros_client::message::Request;

use crate::flow::{Call, Step};
use crate::process::process;
use crate::request::Progress;
use crate::types::{QosSpec, limit};

/// Seconds that `flow_alloc` and `flow_join` wait when they are not told how long.
const DEFAULT_TIMEOUT: f64 = 20.0;

// --- flows

/// Allocate a flow to a name.
///
/// # Safety
///
/// `name` is NULL or a text, `qos` and `timeout` are NULL or lead to what their types say.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn flow_alloc(name: *const c_char, qos: *mut QosSpec, timeout: *const timespec) -> c_int {
    // SAFETY: as the caller says.
    let begin = || unsafe {
        let (name, timeout) = match (destination(name), types::seconds(timeout)) {
            (Ok(name), Ok(timeout)) => (name, timeout),
            (Err(error), _) | (_, Err(error)) => return -error,
        };
        let qos = qos.as_ref().map_or(types::RAW, |qos| qos.to_message());
        request::begin(&Request::Alloc { name, qos, timeout: Some(timeout.unwrap_or(DEFAULT_TIMEOUT)) })
    };
    let begun = contained(begin);
    // SAFETY: as the caller says.
    unsafe { wait_for_flow(begun, qos) }
}

/// Wait for a flow to a name of this program.
///
/// # Safety
///
/// As for `flow_alloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn flow_accept(qos: *mut QosSpec, timeout: *const timespec) -> c_int {
    // SAFETY: as the caller says.
    let begin = || match unsafe { types::seconds(timeout) } {
        Ok(timeout) => request::begin(&Request::Accept { timeout }),
        Err(error) => -error,
    };
    let begun = contained(begin);
    // SAFETY: as the caller says.
    unsafe { wait_for_flow(begun, qos) }
}

/// Join a broadcast layer.
///
/// # Safety
///
/// As for `flow_alloc`.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn flow_join(layer: *const c_char, timeout: *const timespec) -> c_int {
    // SAFETY: as the caller says.
    let begin = || unsafe {
        let (layer, timeout) = match (destination(layer), types::seconds(timeout)) {
            (Ok(layer), Ok(timeout)) => (layer, timeout),
            (Err(error), _) | (_, Err(error)) => return -error,
        };
        let timeout = Some(timeout.unwrap_or(DEFAULT_TIMEOUT));
        request::begin(&Request::Join { layer, qos: types::JOINED, timeout })
    };
    let begun = contained(begin);
    // SAFETY: NULL is fine.
    unsafe { wait_for_flow(begun, std::ptr::null_mut()) }
}

/// # Safety
///
/// As for `text`.
unsafe fn destination<'a>(name: *const c_char) -> Result<&'a str, c_int> {
    if name.is_null() {
        return Err(libc::EINVAL);
    }
    // SAFETY: as the caller says.
    unsafe { text(name) }.ok_or(ENAME)
}

/// Wait for the answer to a request that was begun on that socket, and take the flow.
unsafe fn wait_for_flow(begun: c_int, qos: *mut QosSpec) -> c_int {
    if begun < 0 {
        return begun;
    }
    let mut interrupted = false;
    // Unless a handler of a signal was not made for calls to go on, until there is an answer.
    while !interrupted {
        match contained(request::step) {
            Progress::Answered => break,
            Progress::Failed(error) => return error,
            // SAFETY: the socket is that of the parked request.
            Progress::Sleep(end) => interrupted = unsafe { sleep::until_answered(begun, end) },
        }
    }
    let finish = || {
        if interrupted {
            request::withdraw();
            return -libc::EINTR;
        }
        match request::finish() {
            Ok((fd, granted)) => {
                // SAFETY: as the caller says.
                if let Some(qos) = unsafe { qos.as_mut() } {
                    *qos = QosSpec::from_message(granted);
                }
                fd
            }
            Err(error) => error,
        }
    };
    contained(finish)
}

/// Give a flow back.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn flow_dealloc(fd: c_int) -> c_int {
    contained(|| request::dealloc(fd))
}

/// Read a packet, or part of one.
///
/// # Safety
///
/// `buffer` is NULL or has room for `count` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn flow_read(fd: c_int, buffer: *mut c_void, count: size_t) -> ssize_t {
    let mut call = Call::default();
    loop {
        // SAFETY: as the caller says.
        let read = || unsafe {
            if buffer.is_null() && count > 0 {
                return Step::failed(libc::EINVAL);
            }
            let target = if count == 0 { &mut [] } else { slice_of_room(buffer, count) };
            process().table.read(fd, target, &mut call)
        };
        match guarded(read) {
            Step::Done(result) => return result,
            // SAFETY: the descriptors are those of the parked flow.
            Step::Sleep(bells, deadline) => unsafe { sleep::until_readable(bells, deadline) },
            Step::Again => {
                sleep::cancellation_point();
                continue;
            }
        }
        uncancelled(sleep::unpark);
    }
}

/// # Safety
///
/// There is room for `count` bytes, which is not 0.
unsafe fn slice_of_room<'a>(buffer: *mut c_void, count: usize) -> &'a mut [MaybeUninit<u8>] {
    // SAFETY: the caller says so; no object is larger than `isize::MAX`, so what is beyond is not there.
    unsafe { slice::from_raw_parts_mut(buffer.cast(), count.min(isize::MAX as usize)) }
}

/// Write a packet.
///
/// # Safety
///
/// `buffer` is NULL or holds `count` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn flow_write(fd: c_int, buffer: *const c_void, count: size_t) -> ssize_t {
    let mut call = Call::default();
    loop {
        // SAFETY: as the caller says.
        let write = || unsafe {
            if buffer.is_null() && count > 0 {
                return Step::failed(libc::EINVAL);
            }
            let packet =
                if count == 0 { &[][..] } else { slice::from_raw_parts(buffer.cast(), count.min(isize::MAX as usize)) };
            process().table.write(fd, packet, &mut call)
        };
        match guarded(write) {
            Step::Done(result) => return result,
            _ => sleep::cancellation_point(),
        }
    }
}

/// Get and set what there is to set about a flow. In the header it takes any third argument: all platforms that this is built
/// for pass the first ones in registers, and those behind an ellipsis too.
///
/// # Safety
///
/// The argument is what the header says for the command.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fccntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    contained(|| match process().table.get(fd) {
        // SAFETY: as the caller says.
        Some(flow) => unsafe { types::control(&flow, command, argument) },
        None => -table::why_not(fd),
    })
}

// --- events

/// Make a flow set; NULL when there are no descriptors left for one.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn fset_create() -> *mut c_void {
    contained(|| set::Handle(process().sets.create())).0
}

/// Take all flows out of a set and give it back.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn fset_destroy(set: *mut c_void) {
    contained(|| process().sets.destroy(set));
}

/// Take all flows out of a set.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn fset_zero(set: *mut c_void) {
    contained(|| process().sets.zero(set));
}

/// Put a flow into a set.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn fset_add(set: *mut c_void, fd: c_int) -> c_int {
    contained(|| match process().table.get(fd) {
        Some(flow) => process().sets.add(set, fd, flow),
        None => -libc::EINVAL,
    })
}

/// Take a flow out of a set, if it is in.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn fset_del(set: *mut c_void, fd: c_int) {
    contained(|| process().sets.remove(set, fd));
}

/// Whether a flow is in a set.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn fset_has(set: *const c_void, fd: c_int) -> bool {
    contained(|| c_int::from(process().sets.has(set, fd))) == 1
}

/// Make an event queue.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn fqueue_create() -> *mut c_void {
    contained(|| set::Handle(process().sets.create_queue())).0
}

/// Give an event queue back.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn fqueue_destroy(queue: *mut c_void) {
    contained(|| process().sets.destroy_queue(queue));
}

/// Take the next event out of a queue: the flow that it is about, `-EPERM` when there is none.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn fqueue_next(queue: *mut c_void) -> c_int {
    contained(|| process().sets.next(queue))
}

/// The type of the event that was taken last.
#[unsafe(no_mangle)]
pub extern "C-unwind" fn fqueue_type(queue: *mut c_void) -> c_int {
    contained(|| process().sets.kind(queue))
}

/// Wait until something happened to a flow of a set.
///
/// # Safety
///
/// `timeout` is NULL or leads to a time.
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn fevent(set: *mut c_void, queue: *mut c_void, timeout: *const timespec) -> ssize_t {
    let mut deadline = None;
    let mut started = false;
    let mut slept = false;
    loop {
        let step = || {
            if !started {
                // SAFETY: as the caller says.
                match unsafe { limit(timeout) } {
                    Ok(limit) => deadline = limit,
                    Err(error) => return Step::failed(error),
                }
                started = true;
            }
            process().sets.step(set, queue, deadline, slept)
        };
        match contained(step) {
            Step::Done(result) => return result,
            // SAFETY: the descriptor is that of the parked set.
            Step::Sleep(epoll, deadline) => unsafe { sleep::until_readable(epoll, deadline) },
            Step::Again => {
                sleep::cancellation_point();
                continue;
            }
        }
        uncancelled(sleep::unpark);
        slept = true;
    }
}
