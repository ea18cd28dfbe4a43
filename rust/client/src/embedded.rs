//! The embedded node: a program that finds no node starts one for its user, as `ouroboros.runtime.embedded` does for those
//! in Python.

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{FlockOperation, flock};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::Error;
use crate::paths::make_runtime_dir;

/// What the node writes when programs can connect.
const READY: &[u8] = b"ready\n";

/// What starts our `irmd`, for whoever wants to say so; else it is looked for.
const CHOSEN: &str = "OUROBOROS_IRMD";

/// Start a node in `directory` unless `try_connect` finds one by now.
pub(crate) fn start_node<T>(directory: &Path, try_connect: impl Fn() -> Result<Option<T>, Error>) -> Result<T, Error> {
    let shown = directory.display();
    make_runtime_dir(directory)?;
    let irmd = find_irmd().ok_or_else(|| {
        Error::Node(format!(
            "no node runs in {shown}, and there is no irmd of PyOuroboros on PATH to start one: run one, or set {CHOSEN}"
        ))
    })?;
    let failed = |error: std::io::Error| Error::Node(format!("cannot start a node in {shown}: {error}"));
    let lock = File::create(directory.join("start.lock")).map_err(failed)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
    if let Some(found) = try_connect()? {
        return Ok(found);
    }
    let log = directory.join("irmd.log");
    if !spawn(&irmd, directory, &log).map_err(failed)? {
        let words = fs::read_to_string(&log).unwrap_or_default();
        let last = words.trim().lines().last().unwrap_or("it said nothing");
        return Err(Error::Node(format!("the node did not start: {last} (see {})", log.display())));
    }
    try_connect()?.ok_or_else(|| Error::Node(format!("the node started in {shown} but is gone: see {}", log.display())))
}

/// Start it and wait until it is ready, or is not going to be.
fn spawn(irmd: &Path, directory: &Path, log: &Path) -> std::io::Result<bool> {
    let log = File::create(log)?;
    let (ready, node_end) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut child = start(irmd, directory, &log, node_end)?;
    let mut said = Vec::new();
    // To its end of file or to all that we want to hear: another child of this program may have got a copy of the pipe.
    File::from(ready).take(READY.len() as u64).read_to_end(&mut said)?;
    // The child only forks the node and ends. A program that ignores its children, or waits for all of them, leaves us none.
    let _ = child.wait();
    Ok(said == READY)
}

fn start(irmd: &Path, directory: &Path, log: &File, node_end: OwnedFd) -> std::io::Result<Child> {
    fcntl_setfd(&node_end, FdFlags::empty())?;
    Command::new(irmd)
        .args(["--embedded", "--ready-fd", &node_end.as_raw_fd().to_string()])
        .current_dir("/")
        .env("OUROBOROS_RUNTIME_DIR", directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        // What the terminal does to the program is not for the node.
        .process_group(0)
        .spawn()
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
