//! The embedded node: a program that finds no node starts one for its user, as `ouroboros.runtime.embedded` does for those
//! in Python.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use ouroboros_shm::descriptors::above_standard;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::c::in_session_of_its_own;
use crate::error::Error;
use crate::paths::make_runtime_dir;
use crate::time::pause;

/// What the node writes when programs can connect.
const READY: &[u8] = b"ready\n";

/// What starts our `irmd`, for whoever wants to say so; else it is looked for.
const CHOSEN: &str = "OUROBOROS_IRMD";

/// Set for a process that is to become a node, to the process that starts it: it starts none itself, whatever it is.
const STARTED_BY: &str = "OUROBOROS_STARTED_BY";

/// Variables by which whoever runs a program talks to that program alone. `ouroboros.runtime.children` has the same list, and
/// says why.
const SPEAKS_FOR_PARENT: [&str; 22] = [
    "CREDENTIALS_DIRECTORY",
    "FDSTORE",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "MAINPID",
    "MAKEFLAGS",
    "MAKELEVEL",
    "MANAGERPID",
    "MANAGERPIDFDID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "MFLAGS",
    "NOTIFY_SOCKET",
    "OLDPWD",
    "PWD",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// Where an interpreter finds modules and leaves compiled ones. A node gets no other variable of Python.
const PYTHON_PLACES: [&str; 8] = [
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONHOME",
    "PYTHONNOUSERSITE",
    "PYTHONPATH",
    "PYTHONPLATLIBDIR",
    "PYTHONPYCACHEPREFIX",
    "PYTHONSAFEPATH",
    "PYTHONUSERBASE",
];

/// Start a node in `directory` unless `find` finds one by now. Returns when programs can connect; takes until `end` at most.
pub(crate) fn start_node(directory: &Path, end: Instant, find: impl Fn() -> bool) -> Result<(), Error> {
    let shown = directory.display();
    if let Some(starter) = env::var_os(STARTED_BY) {
        let starter = starter.to_string_lossy();
        return Err(Error::Node(format!(
            "process {starter} started this program as its node, which it is not: set {CHOSEN} to the command that runs \
             irmd, or run `irmd` yourself"
        )));
    }
    make_runtime_dir(directory)?;
    let irmd = find_irmd().ok_or_else(|| {
        Error::Node(format!(
            "no node runs in {shown}, and there is no irmd of PyOuroboros on PATH to start one: run one, or set {CHOSEN}"
        ))
    })?;
    let failed = |error: std::io::Error| Error::Node(format!("cannot start a node in {shown}: {error}"));
    let Some(_lock) = lock(directory, end, &find).map_err(failed)? else { return Ok(()) };
    if find() {
        return Ok(());
    }
    let log = directory.join("irmd.log");
    if !spawn(&irmd, directory, &log, end).map_err(failed)? {
        let words = fs::read_to_string(&log).unwrap_or_default();
        let last = words.trim().lines().last().unwrap_or("it said nothing in time");
        return Err(Error::Node(format!("the node did not start: {last} (see {})", log.display())));
    }
    Ok(())
}

/// The lock of those who start nodes, as long as it is held; None when a node was found while another process held it.
fn lock(directory: &Path, end: Instant, find: impl Fn() -> bool) -> std::io::Result<Option<File>> {
    let open =
        File::options().read(true).write(true).create(true).truncate(false).open(directory.join("start.lock"))?;
    let mut lock = File::from(above_standard(open.into())?);
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::WOULDBLOCK) if find() => return Ok(None),
            Err(Errno::WOULDBLOCK) if Instant::now() < end => pause(),
            Err(Errno::WOULDBLOCK) => {
                let mut owner = String::new();
                lock.read_to_string(&mut owner)?;
                return Err(std::io::Error::other(format!(
                    "process {owner} has begun to and does not come to an end: if it is stopped have it go on (`kill -CONT`), \
                     or end it"
                )));
            }
            Err(error) => return Err(error.into()),
        }
    }
    // On a full disk others cannot say who has it.
    let _ = lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id()));
    Ok(Some(lock))
}

/// Whether a node has the directory, though nobody listens: as it begins, or with `or_ending` as it ends.
pub(crate) fn is_starting(directory: &Path, or_ending: bool) -> bool {
    let path = directory.join("irmd.lock");
    let (Ok(status), Ok(locks)) = (fs::metadata(&path), fs::read_to_string("/proc/locks")) else { return false };
    // Not by trying: a node would find the lock taken.
    let file = format!(":{}", status.ino());
    let held = locks.lines().any(|line| line.contains("FLOCK") && line.split(' ').any(|word| word.ends_with(&file)));
    // One that ends empties it.
    held && (or_ending || status.len() > 0)
}

/// A sentence about a node that `is_starting` for too long.
pub(crate) fn why_not_ready(directory: &Path) -> Error {
    let owner = fs::read_to_string(directory.join("irmd.lock")).unwrap_or_default();
    Error::Node(format!(
        "the node in {} is not ready: process {owner} has the directory and lets no program in; if it goes on like that, end it \
         and start a node again",
        directory.display()
    ))
}

/// A sentence about a node that ended before anybody could use it.
pub(crate) fn gone_already(directory: &Path) -> Error {
    let shown = directory.display();
    Error::Node(format!("the node started in {shown} but is gone already: see {shown}/irmd.log"))
}

/// Start it and wait until it is ready, or is not going to be.
fn spawn(irmd: &Path, directory: &Path, log: &Path, end: Instant) -> std::io::Result<bool> {
    let log = File::from(above_standard(File::create(log)?.into())?);
    let (ready, node_end) = pipe_with(PipeFlags::CLOEXEC)?;
    let ready = File::from(above_standard(ready)?);
    let mut child = start(irmd, directory, &log, above_standard(node_end)?)?;
    // The child only forks the node and ends.
    let is_ready = hear(ready, end)? && has_ended(&mut child, end);
    if !is_ready {
        // With all that it has become: nothing is left that is no node. It may have ended by itself.
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        // A program that ignores its children, or waits for all of them, leaves us none.
        let _ = child.wait();
    }
    Ok(is_ready)
}

/// Whether the node says that it is ready, before it closes the pipe and in time. Another child of this program may have got a
/// copy of the pipe, so its end of file may not come.
fn hear(mut ready: File, end: Instant) -> std::io::Result<bool> {
    let mut said: Vec<u8> = Vec::new();
    while said != READY {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&ready.as_fd(), PollFlags::IN)], Some(&left)) {
            Ok(0) => return Ok(false),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        let mut chunk = [0; READY.len()];
        match ready.read(&mut chunk)? {
            0 => return Ok(false),
            length => said.extend(&chunk[..length]),
        }
    }
    Ok(true)
}

fn has_ended(child: &mut Child, end: Instant) -> bool {
    // An error: somebody else has waited for it.
    while let Ok(None) = child.try_wait() {
        if Instant::now() >= end {
            return false;
        }
        pause();
    }
    true
}

fn start(irmd: &Path, directory: &Path, log: &File, node_end: OwnedFd) -> std::io::Result<Child> {
    fcntl_setfd(&node_end, FdFlags::empty())?;
    let mut command = Command::new(std::path::absolute(irmd)?);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if SPEAKS_FOR_PARENT.contains(&&*text) || text.starts_with("PYTHON") && !PYTHON_PLACES.contains(&&*text) {
            command.env_remove(&name);
        }
    }
    command
        .args(["--embedded", "--ready-fd", &node_end.as_raw_fd().to_string()])
        .current_dir("/")
        .env("OUROBOROS_RUNTIME_DIR", directory)
        .env(STARTED_BY, std::process::id().to_string())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?);
    // What the terminal does to the program is not for the node.
    in_session_of_its_own(&mut command).spawn()
}

/// The `irmd` of PyOuroboros: the one that was named, the one that belongs to this library, or one on PATH. The prototype's
/// has the same name, but no `ouroboros` beside it.
fn find_irmd() -> Option<PathBuf> {
    if let Some(chosen) = env::var_os(CHOSEN).filter(|chosen| !chosen.is_empty()) {
        return Some(chosen.into());
    }
    let beside = library().and_then(|library| Some(library.parent()?.join("ouroboros/irmd")));
    if let Some(beside) = beside.filter(|path| is_executable(path)) {
        return Some(beside);
    }
    let path = env::var_os("PATH")?;
    let mut places = env::split_paths(&path).filter(|place| is_executable(&place.join("ouroboros")));
    places.find_map(|place| Some(place.join("irmd")).filter(|irmd| is_executable(irmd)))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|status| status.is_file() && status.permissions().mode() & 0o111 != 0)
}

/// The file that this code was loaded from.
fn library() -> Option<PathBuf> {
    let here = library as fn() -> Option<PathBuf> as usize;
    let map = fs::read_to_string("/proc/self/maps").ok()?;
    map.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let within = usize::from_str_radix(from, 16).ok()? <= here && here < usize::from_str_radix(to, 16).ok()?;
        within.then(|| Some(PathBuf::from(&rest[rest.find('/')?..])))?
    })
}
