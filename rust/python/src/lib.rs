//! The Python face of the engine: converts, decides nothing. `src/ouroboros/dataplane/_engine.pyi` is its typed stub.

#[cfg(feature = "handmade")]
mod awaitable;
mod awaited;
mod blocking;
mod buffer;
mod descriptors;
mod endpoint;
mod engine;
mod errors;
mod fastcall;
mod guard;
mod impairment;
mod link;
mod sim;
mod slot;
mod stay;

use std::os::fd::{BorrowedFd, IntoRawFd};

use ouroboros_shm::{channel, endpoint as shm, layout};
use pyo3::prelude::*;

/// Make the descriptors of a new flow: memory, doorbell of side 0, doorbell of side 1. The caller closes them.
#[pyfunction]
fn create_channel() -> PyResult<(i32, i32, i32)> {
    let made = channel::create().map_err(errors::os_error)?;
    let [zero, one] = made.bells;
    Ok((made.memory.into_raw_fd(), zero.into_raw_fd(), one.into_raw_fd()))
}

/// Tell the other side of a flow that the process of `side` is gone.
#[pyfunction]
fn mark_dead(memory: i32, side: usize) -> PyResult<()> {
    descriptors::check(&[memory])?;
    // SAFETY: the caller keeps the descriptor open during the call, as for any function of `os`.
    let memory = unsafe { BorrowedFd::borrow_raw(memory) };
    Ok(channel::mark_dead(memory, side)?)
}

/// To be called in the child of a fork.
#[pyfunction]
fn note_fork() {
    shm::note_fork();
}

/// To be called by the thread that ends the program, before it abandons its flows.
#[pyfunction]
fn note_exit() {
    shm::note_exit();
}

/// Packet engine of the package: everything that runs once per packet.
#[pymodule]
fn _engine(module: &Bound<'_, PyModule>) -> PyResult<()> {
    errors::find(module.py());
    module.add("MAX_PACKET", layout::MAX_PACKET)?;
    module.add("CAPACITY", layout::CAPACITY)?;
    module.add_class::<awaited::Call>()?;
    // Their texts name the classes that are made of them.
    module.add("AwaitedFlow", module.py().get_type::<awaited::AwaitedFlow>())?;
    #[cfg(feature = "handmade")]
    awaitable::install(module.py())?;
    module.add("BlockingFlow", module.py().get_type::<blocking::BlockingFlow>())?;
    blocking::replace_methods(module.py())?;
    module.add_class::<endpoint::Endpoint>()?;
    module.add_class::<link::LinkWorker>()?;
    module.add_class::<engine::Engine>()?;
    module.add_class::<engine::Frcp>()?;
    module.add_class::<engine::Setup>()?;
    module.add_class::<impairment::LinkSettings>()?;
    module.add_class::<sim::Simulation>()?;
    module.add_class::<sim::SimulatedEngine>()?;
    module.add_function(wrap_pyfunction!(create_channel, module)?)?;
    module.add_function(wrap_pyfunction!(mark_dead, module)?)?;
    module.add_function(wrap_pyfunction!(note_exit, module)?)?;
    module.add_function(wrap_pyfunction!(note_fork, module)?)
}
