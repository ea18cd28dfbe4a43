//! Arguments and results of C programs: layouts, numbers, times.

use std::ffi::c_int;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use libc::timespec;
use ouroboros_client::message::Qos;

use crate::flow::Flow;

/// `qosspec_t`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub struct QosSpec {
    pub delay: u32,
    pub bandwidth: u64,
    pub availability: u8,
    pub loss: u32,
    pub ber: u32,
    pub in_order: u8,
    pub max_gap: u32,
    pub timeout: u32,
}

/// The QoS for a program that names none: `qos_raw`.
pub const RAW: Qos = Qos {
    delay: u32::MAX,
    bandwidth: 0,
    availability: 0,
    loss: 1,
    ber: 1,
    in_order: 0,
    max_gap: u32::MAX,
    cypher_s: 0,
    timeout: 120_000,
};

/// The QoS of a flow to a broadcast layer.
pub const JOINED: Qos = Qos { loss: u32::MAX, ber: u32::MAX, timeout: 0, ..RAW };

impl QosSpec {
    /// As the node is asked for it.
    pub fn to_message(self) -> Qos {
        Qos {
            delay: self.delay,
            bandwidth: self.bandwidth,
            availability: self.availability,
            loss: self.loss,
            ber: self.ber,
            in_order: u8::from(self.in_order != 0),
            max_gap: self.max_gap,
            cypher_s: 0,
            timeout: self.timeout,
        }
    }

    /// As the node granted it.
    pub fn from_message(qos: Qos) -> Self {
        QosSpec {
            delay: qos.delay,
            bandwidth: qos.bandwidth,
            availability: qos.availability,
            loss: qos.loss,
            ber: qos.ber,
            in_order: qos.in_order,
            max_gap: qos.max_gap,
            timeout: qos.timeout,
        }
    }
}

/// A time limit as C gives it; None for NULL, which is none. A negative one is over already.
///
/// # Safety
///
/// The pointer is NULL or leads to a time.
unsafe fn duration(time: *const timespec) -> Result<Option<Duration>, c_int> {
    // SAFETY: as the caller says.
    let Some(time) = (unsafe { time.as_ref() }) else { return Ok(None) };
    let nanoseconds = u32::try_from(time.tv_nsec).ok().filter(|nanoseconds| *nanoseconds < 1_000_000_000);
    let nanoseconds = nanoseconds.ok_or(libc::EINVAL)?;
    Ok(Some(u64::try_from(time.tv_sec).map_or(Duration::ZERO, |seconds| Duration::new(seconds, nanoseconds))))
}

/// A time limit for the node, seconds.
///
/// # Safety
///
/// As for `duration`.
pub unsafe fn seconds(time: *const timespec) -> Result<Option<f64>, c_int> {
    // The node takes also limits that end after the sun does.
    // SAFETY: as the caller says.
    Ok(unsafe { duration(time) }?.map(|time| time.as_secs_f64().min(1e9)))
}

/// When a time limit that starts now is over; None for never.
///
/// # Safety
///
/// As for `duration`.
pub unsafe fn limit(time: *const timespec) -> Result<Option<Instant>, c_int> {
    // SAFETY: as the caller says.
    Ok(unsafe { duration(time) }?.and_then(|time| Instant::now().checked_add(time)))
}

// --- fccntl

const SET_READ_TIMEOUT: c_int = 0o1;
const GET_READ_TIMEOUT: c_int = 0o2;
const SET_SEND_TIMEOUT: c_int = 0o3;
const GET_SEND_TIMEOUT: c_int = 0o4;
const GET_QOS: c_int = 0o5;
const SET_FLAGS: c_int = 0o6;
const GET_FLAGS: c_int = 0o7;
const GET_READ_QUEUE: c_int = 0o10;
const GET_SEND_QUEUE: c_int = 0o11;
const SET_FRCT_FLAGS: c_int = 0o1000;
const GET_FRCT_FLAGS: c_int = 0o2000;

/// `fccntl`.
///
/// # Safety
///
/// The argument is what the header says for the command, or NULL where it says a pointer.
pub unsafe fn control(flow: &Flow, command: c_int, argument: usize) -> c_int {
    // SAFETY: as the caller says.
    let result = unsafe {
        match command {
            SET_READ_TIMEOUT => {
                duration(argument as *const timespec).map(|time| flow.properties.receive_timeout.set(time))
            }
            GET_READ_TIMEOUT => give_time(argument, flow.properties.receive_timeout.get()),
            SET_SEND_TIMEOUT => {
                duration(argument as *const timespec).map(|time| flow.properties.send_timeout.set(time))
            }
            GET_SEND_TIMEOUT => give_time(argument, flow.properties.send_timeout.get()),
            GET_QOS => give(argument, QosSpec::from_message(flow.qos)),
            // An int is passed with garbage in its upper half.
            SET_FLAGS => flow.set_flags(argument as u32),
            GET_FLAGS => give(argument, flow.properties.flags()),
            GET_READ_QUEUE => flow.receive_queue().and_then(|length| give(argument, length)),
            GET_SEND_QUEUE => flow.transmit_queue().and_then(|length| give(argument, length)),
            SET_FRCT_FLAGS => flow.set_frct_flags(argument as u16),
            GET_FRCT_FLAGS => flow.frct_flags().and_then(|flags| give(argument, flags)),
            _ => Err(libc::ENOTSUP),
        }
    };
    result.map_or_else(|error| -error, |()| 0)
}

/// Write a value to where C wants it.
///
/// # Safety
///
/// The argument is NULL or leads to room for one.
unsafe fn give<T>(argument: usize, value: T) -> Result<(), c_int> {
    let target = NonNull::new(argument as *mut T).ok_or(libc::EINVAL)?;
    // SAFETY: as the caller says.
    unsafe { target.write(value) };
    Ok(())
}

/// # Safety
///
/// As for `give`.
unsafe fn give_time(argument: usize, time: Option<Duration>) -> Result<(), c_int> {
    if argument == 0 {
        return Err(libc::EINVAL);
    }
    let time = time.ok_or(libc::EPERM)?;
    let time = timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
    // SAFETY: as the caller says.
    unsafe { give(argument, time) }
}
