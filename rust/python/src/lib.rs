//! The Python face of the engine: converts, decides nothing. `src/ouroboros/dataplane/_engine.pyi` is its typed stub.

mod awaitable;
mod awaited;
mod broadcast;
mod buffer;
mod endpoint;
mod errors;
mod guard;
mod link;
mod relay;
mod slot;
mod udp;

use std::os::fd::{BorrowedFd, IntoRawFd};

use ouroboros_shm::{channel, endpoint as shm, layout};
use pyo3::prelude::*;

/// Make the descriptors of a new flow: memory, doorbell of side 0, doorbell of side 1. The caller closes them.
#[pyfunction]
fn create_channel() -> PyResult<(i32, i32, i32)> {
    let made = channel::create()?;
    let [zero, one] = made.bells;
    Ok((made.memory.into_raw_fd(), zero.into_raw_fd(), one.into_raw_fd()))
}

/// Tell the other side of a flow that the process of `side` is gone.
#[pyfunction]
fn mark_dead(memory: i32, side: usize) -> PyResult<()> {
    if memory < 0 {
        return Err(pyo3::exceptions::PyValueError::new_err("not a descriptor"));
    }
    // SAFETY: the caller keeps the descriptor open during the call, as for any function of `os`.
    let memory = unsafe { BorrowedFd::borrow_raw(memory) };
    Ok(channel::mark_dead(memory, side)?)
}

/// To be called in the child of a fork.
#[pyfunction]
fn note_fork() {
    shm::note_fork();
}

/// Packet engine of the package: everything that runs once per packet.
#[pymodule]
fn _engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("MAX_PACKET", layout::MAX_PACKET)?;
    module.add("CAPACITY", layout::CAPACITY)?;
    module.add_class::<awaited::Call>()?;
    module.add_class::<awaited::AwaitedFlow>()?;
    awaitable::replace_methods(module.py())?;
    module.add_class::<broadcast::BroadcastWorker>()?;
    module.add_class::<endpoint::Endpoint>()?;
    module.add_class::<link::LinkWorker>()?;
    module.add_class::<relay::RelayWorker>()?;
    module.add_class::<udp::Frcp>()?;
    module.add_class::<udp::UdpWorker>()?;
    module.add_function(wrap_pyfunction!(create_channel, module)?)?;
    module.add_function(wrap_pyfunction!(mark_dead, module)?)?;
    module.add_function(wrap_pyfunction!(note_fork, module)?)
}
