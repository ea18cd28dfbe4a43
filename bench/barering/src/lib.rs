//! The least a shared-memory ring can do under Python: no checks, no timeouts, no errors, both sides trusted.
//!
//! One file holds a ring each way. A packet is a `u32` length and its bytes, padded to 8 so that a length never wraps.
//! Benchmark only: it trusts what it finds in the shared memory.

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::ffi::CString;
use std::io::Error;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

const CAPACITY: usize = 2 << 20;
const MASK: usize = CAPACITY - 1;
const HEADER: usize = 4096;
const HALF: usize = HEADER + CAPACITY;
/// Below this an exchange between two running cores answers, and dropping the GIL would cost more than it gives.
const SPIN_ATTACHED: Duration = Duration::from_micros(1);
const SPIN_DETACHED: Duration = Duration::from_micros(50);

#[repr(C, align(64))]
struct Line<T>(T);

/// One cache line a field: the two sides write different lines.
#[repr(C)]
struct Header {
    head: Line<AtomicU64>,
    tail: Line<AtomicU64>,
    reader_parked: Line<AtomicU32>,
    writer_parked: Line<AtomicU32>,
}

/// One direction of the mapping.
#[derive(Clone, Copy)]
struct Half(*mut u8);

// SAFETY: the mapping lives as long as the process; fields are atomics, data bytes have one writer at a time.
unsafe impl Send for Half {}
unsafe impl Sync for Half {}

impl Half {
    fn header(&self) -> &Header {
        // SAFETY: the mapping is page aligned, zeroed and longer than `Header`, for which zero is valid.
        unsafe { &*self.0.cast::<Header>() }
    }

    fn copy_in(&self, at: usize, bytes: &[u8]) {
        let start = at & MASK;
        let first = bytes.len().min(CAPACITY - start);
        // SAFETY: both pieces lie inside the data area; the reader does not look before `tail` is published.
        unsafe {
            let data = self.0.add(HEADER);
            data.add(start).copy_from_nonoverlapping(bytes.as_ptr(), first);
            data.copy_from_nonoverlapping(bytes.as_ptr().add(first), bytes.len() - first);
        }
    }

    fn copy_out(&self, at: usize, bytes: &mut [u8]) {
        let start = at & MASK;
        let first = bytes.len().min(CAPACITY - start);
        // SAFETY: as in `copy_in`; the writer does not reuse the bytes before `head` is published.
        unsafe {
            let data = self.0.add(HEADER);
            bytes.as_mut_ptr().copy_from_nonoverlapping(data.add(start), first);
            bytes.as_mut_ptr().add(first).copy_from_nonoverlapping(data, bytes.len() - first);
        }
    }
}

fn spin(limit: Duration, ready: &impl Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..16 {
            if ready() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() >= limit {
            return false;
        }
    }
}

fn park(parked: &AtomicU32, ready: &impl Fn() -> bool) {
    while !ready() {
        parked.store(1, Ordering::Relaxed);
        // Pairs with the fence in `wake`: either we see the other's index or it sees our flag.
        fence(Ordering::SeqCst);
        if ready() {
            break;
        }
        // SAFETY: the word outlives the call. Not FUTEX_PRIVATE: the other side is another process.
        unsafe { libc::syscall(libc::SYS_futex, parked.as_ptr(), libc::FUTEX_WAIT, 1, std::ptr::null::<u8>()) };
    }
    parked.store(0, Ordering::Relaxed);
}

fn wake(parked: &AtomicU32) {
    // Pairs with the fence in `park`.
    fence(Ordering::SeqCst);
    if parked.load(Ordering::Relaxed) != 0 {
        parked.store(0, Ordering::Relaxed);
        // SAFETY: as in `park`.
        unsafe { libc::syscall(libc::SYS_futex, parked.as_ptr(), libc::FUTEX_WAKE, 1) };
    }
}

fn wait(py: Python<'_>, parked: &AtomicU32, ready: impl Fn() -> bool + Sync + Send) {
    if !spin(SPIN_ATTACHED, &ready) {
        py.detach(|| {
            if !spin(SPIN_DETACHED, &ready) {
                park(parked, &ready);
            }
        });
    }
}

fn padded(len: usize) -> usize {
    (4 + len + 7) & !7
}

/// A ring each way between two processes; the creator's outgoing ring is the opener's incoming one.
#[pyclass]
struct Ring {
    out: Half,
    inn: Half,
    sent: usize,
    sent_head: usize,
    taken: usize,
    taken_tail: usize,
}

#[pymethods]
impl Ring {
    #[new]
    fn new(path: &str, create: bool) -> PyResult<Self> {
        let base = map(path, create).map_err(PyOSError::new_err)?;
        // SAFETY: the mapping holds two halves.
        let (first, second) = (Half(base), Half(unsafe { base.add(HALF) }));
        let (out, inn) = if create { (first, second) } else { (second, first) };
        Ok(Ring { out, inn, sent: 0, sent_head: 0, taken: 0, taken_tail: 0 })
    }

    fn write(&mut self, py: Python<'_>, packet: &[u8]) {
        let (half, sent, need) = (self.out, self.sent, padded(packet.len()));
        let header = half.header();
        let head = || header.head.0.load(Ordering::Acquire) as usize;
        if sent + need - self.sent_head > CAPACITY {
            wait(py, &header.writer_parked.0, || sent + need - head() <= CAPACITY);
            self.sent_head = head();
        }
        half.copy_in(sent, &(packet.len() as u32).to_ne_bytes());
        half.copy_in(sent + 4, packet);
        self.sent = sent + need;
        header.tail.0.store(self.sent as u64, Ordering::Release);
        wake(&header.reader_parked.0);
    }

    fn read<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let (half, taken) = (self.inn, self.taken);
        let header = half.header();
        let tail = || header.tail.0.load(Ordering::Acquire) as usize;
        if taken == self.taken_tail {
            wait(py, &header.reader_parked.0, || tail() != taken);
            self.taken_tail = tail();
        }
        let mut len = [0; 4];
        half.copy_out(taken, &mut len);
        let len = u32::from_ne_bytes(len) as usize;
        let packet = PyBytes::new_with(py, len, |bytes| {
            half.copy_out(taken + 4, bytes);
            Ok(())
        })?;
        self.taken = taken + padded(len);
        header.head.0.store(self.taken as u64, Ordering::Release);
        wake(&header.writer_parked.0);
        Ok(packet)
    }
}

fn map(path: &str, create: bool) -> Result<*mut u8, Error> {
    let path = CString::new(path)?;
    let flags = libc::O_RDWR | libc::O_CLOEXEC | if create { libc::O_CREAT | libc::O_EXCL } else { 0 };
    // SAFETY: plain system calls; the descriptor is closed once mapped, the mapping is never undone.
    unsafe {
        let fd = libc::open(path.as_ptr(), flags, 0o600);
        if fd < 0 || (create && libc::ftruncate(fd, 2 * HALF as i64) < 0) {
            return Err(Error::last_os_error());
        }
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let base = libc::mmap(std::ptr::null_mut(), 2 * HALF, prot, libc::MAP_SHARED, fd, 0);
        libc::close(fd);
        if base == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(base.cast()) }
    }
}

#[pymodule]
fn barering(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Ring>()
}
