//! Getting a flow from the node, and giving it back.

use std::cell::Cell;
use std::ffi::c_int;
use std::os::fd::AsRawFd;
use std::time::Instant;

use ouroboros_client::c::failed;
use ouroboros_client::message::{Qos, Request};
use ouroboros_client::{Error, Pending};

use crate::flow::Flow;
use crate::process::process;
use crate::table;

thread_local! {
    /// The request that this thread waits for. When the thread is cancelled it ends with it, which cancels the request.
    static PENDING: Cell<Option<Pending>> = const { Cell::new(None) };
}

/// Send a request for a flow; returns the socket that its answer comes on, or an error.
pub fn begin(request: &Request<'_>) -> c_int {
    let pending = match process().client.begin(request) {
        Ok(pending) => pending,
        Err(error) => return failed(&error),
    };
    let socket = pending.as_fd().as_raw_fd();
    // A thread that is ending has no place to keep it.
    if PENDING.try_with(|slot| slot.set(Some(pending))).is_ok() { socket } else { -libc::EAGAIN }
}

fn take() -> Option<Pending> {
    PENDING.try_with(Cell::take).ok().flatten()
}

/// Give up on the request of this thread.
pub fn withdraw() {
    if let Some(pending) = take() {
        pending.withdraw();
    }
}

/// Where the request of this thread stands.
#[derive(Debug, Clone, Copy)]
pub enum Progress {
    /// Its answer is on the way: sleep until then, or that time, and take another step.
    Sleep(Option<Instant>),
    /// Its answer is there.
    Answered,
    /// It failed with that number.
    Failed(c_int),
}

impl From<c_int> for Progress {
    fn from(error: c_int) -> Self {
        Progress::Failed(error)
    }
}

/// One step of the request of this thread: see whether it is answered.
pub fn step() -> Progress {
    let Some(mut pending) = take() else { return Progress::Failed(-libc::EAGAIN) };
    let progress = match pending.is_answered() {
        Ok(true) => Progress::Answered,
        Ok(false) => Progress::Sleep(pending.deadline()),
        // It is not to be waited for any more.
        Err(error) => return Progress::Failed(failed(&error)),
    };
    if PENDING.try_with(|slot| slot.set(Some(pending))).is_ok() { progress } else { Progress::Failed(-libc::EAGAIN) }
}

/// Take the answer to the request of this thread, which is there: the descriptor of the flow and its QoS.
pub fn finish() -> Result<(c_int, Qos), c_int> {
    let pending = take().ok_or(-libc::EAGAIN)?;
    let client = &process().client;
    let grant = client.finish(pending).map_err(|error| failed(&error))?;
    let (granted, node) = (grant.granted.clone(), grant.node.clone());
    let release = |error: c_int| {
        client.release(granted.flow_id, granted.side, &node);
        error
    };
    let flow = Flow::new(grant).map_err(|error| {
        let error = Error::Protocol(format!("the node gave a flow that does not work: {error}"));
        release(failed(&error))
    })?;
    // As many as fit are in use.
    let fd = process().table.add(flow).ok_or_else(|| release(-libc::EBADF))?;
    Ok((fd, granted.qos))
}

/// `flow_dealloc`.
pub fn dealloc(fd: c_int) -> c_int {
    let found = process().table.remove(fd, |flow| {
        flow.endpoint.close();
        if let Some(watcher) = flow.watcher() {
            watcher.forget(fd);
        }
        process().client.release(flow.flow_id, flow.side, &flow.node);
    });
    match table::why_not(fd) {
        _ if found => 0,
        libc::EBADF => -libc::EINVAL,
        error => -error,
    }
}
