//! Where a node and its programs meet: as in `ouroboros.runtime.paths`.

use std::env;
use std::fs::{self, DirBuilder};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The longest path of a Unix socket on Linux, bytes.
const SOCKET_PATH: usize = 107;

pub(crate) fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The runtime directory of the node.
pub(crate) fn runtime_dir() -> PathBuf {
    if let Some(chosen) = env::var_os("OUROBOROS_RUNTIME_DIR").filter(|chosen| !chosen.is_empty()) {
        return std::path::absolute(&chosen).unwrap_or_else(|_| chosen.into());
    }
    if user() == 0 {
        return "/run/ouroboros".into();
    }
    match env::var_os("XDG_RUNTIME_DIR").filter(|base| !base.is_empty()) {
        Some(base) => Path::new(&base).join("ouroboros"),
        None => format!("/tmp/ouroboros-{}", user()).into(),
    }
}

/// The control socket in a runtime directory.
pub(crate) fn socket_path(directory: &Path) -> Result<PathBuf, Error> {
    let path = directory.join("irm.sock");
    if path.as_os_str().as_bytes().len() > SOCKET_PATH {
        let directory = directory.display();
        return Err(Error::Node(format!("the path {directory} is too long for a socket: set OUROBOROS_RUNTIME_DIR")));
    }
    Ok(path)
}

/// Make the directory if there is none; refuse one that somebody else could tamper with.
pub(crate) fn make_runtime_dir(directory: &Path) -> Result<(), Error> {
    let mode = if user() == 0 { 0o755 } else { 0o700 };
    let shown = directory.display();
    let failed = |error| Error::Node(format!("cannot use the runtime directory {shown}: {error}"));
    DirBuilder::new().recursive(true).mode(mode).create(directory).map_err(failed)?;
    let status = fs::symlink_metadata(directory).map_err(failed)?;
    let ours = [0, user()].contains(&status.uid());
    if status.is_dir() && ours && status.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(Error::Node(format!(
        "the runtime directory {shown} is not safe: it must be a directory of yours that nobody else can write"
    )))
}
