//! Where a node and its programs meet: as in `ouroboros.runtime.paths`.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The longest path of a Unix socket on Linux, bytes.
const SOCKET_PATH: usize = 107;

/// So many symbolic links the kernel follows in one path.
const MOST_LINKS: usize = 40;

/// The user that the kernel shows in place of one whom a user namespace does not map (`kernel.overflowuid`).
const UNMAPPED: u32 = 65534;

/// The mode bit of a directory in which only the owner of a file may remove it.
const STICKY: u32 = 0o1000;

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

/// The second control socket of a node that serves all users, for root alone.
pub(crate) fn owner_socket_path(directory: &Path) -> PathBuf {
    directory.join("own.sock")
}

/// Whether what belongs to a user is as good as our own: to our user, or root.
pub(crate) fn is_trusted(owner: u32) -> bool {
    owner == 0 || (owner == user() && !is_anybody(owner))
}

/// Make the directory if there is none; refuse one that somebody else could tamper with.
pub(crate) fn make_runtime_dir(directory: &Path) -> Result<(), Error> {
    let mode = if user() == 0 { 0o755 } else { 0o700 };
    let failed = |error| Error::Node(format!("cannot use the runtime directory {}: {error}", directory.display()));
    DirBuilder::new().recursive(true).mode(mode).create(directory).map_err(failed)?;
    check_runtime_dir(directory, &walk(directory).map_err(failed)?)
}

/// Refuse a control socket that somebody else could have put there, or that leads elsewhere.
pub(crate) fn check_socket(path: &Path) -> Result<(), Error> {
    let shown = path.display();
    let failed = |error| Error::Node(format!("cannot reach the node at {shown}: {error}"));
    let directory = path.parent().unwrap_or(path);
    check_runtime_dir(directory, &walk(directory).map_err(failed)?)?;
    if fs::symlink_metadata(path).map_err(failed)?.is_symlink() {
        return Err(Error::Node(format!(
            "{shown} is a symbolic link and leads to the socket of another node: remove it, or name the runtime directory \
             of that node (OUROBOROS_RUNTIME_DIR)"
        )));
    }
    Ok(())
}

fn check_runtime_dir(directory: &Path, way: &[(PathBuf, Metadata)]) -> Result<(), Error> {
    let refused =
        |why: String| Err(Error::Node(format!("the runtime directory {} is not safe: {why}", directory.display())));
    let whole = "it must be a directory of yours that nobody else can write";
    for (index, (path, status)) in way.iter().enumerate() {
        let above = index + 1 < way.len();
        let shown = path.display();
        if !(status.is_dir() || above && status.is_symlink()) {
            return refused(whole.into());
        }
        let owner = status.uid();
        if !(is_trusted(owner) || above && is_anybody(owner)) {
            let whose = if above { format!("{shown}, which leads to it,") } else { "it".into() };
            let remedy = if is_anybody(owner) {
                "who that is this user namespace does not tell, be it you: map the user (`unshare -c`)"
            } else {
                "set OUROBOROS_RUNTIME_DIR to a directory of yours"
            };
            return refused(format!("{whose} belongs to user {owner}; {remedy}"));
        }
        if status.is_symlink() || status.mode() & 0o022 == 0 {
            continue;
        }
        if !above {
            return refused(whole.into());
        }
        // In a sticky one, as /tmp is, nobody moves away what is ours.
        if status.mode() & STICKY == 0 {
            return refused(format!(
                "others can write {shown}, which leads to it: `chmod go-w {shown}`, or set OUROBOROS_RUNTIME_DIR to \
                 another directory"
            ));
        }
    }
    Ok(())
}

/// All directories and symbolic links that are passed when an absolute path is looked up, in order. What the path ends with
/// is not followed.
fn walk(path: &Path) -> io::Result<Vec<(PathBuf, Metadata)>> {
    let mut here = PathBuf::new();
    let mut ahead: Vec<OsString> = parts(path);
    let mut way = Vec::new();
    let mut links = 0;
    while let Some(part) = ahead.pop() {
        here.push(part);
        let status = fs::symlink_metadata(&here)?;
        let is_link = status.is_symlink();
        way.push((here.clone(), status));
        if is_link && !ahead.is_empty() {
            links += 1;
            if links > MOST_LINKS {
                return Err(rustix::io::Errno::LOOP.into());
            }
            ahead.append(&mut parts(&fs::read_link(&here)?));
            here.pop();
        }
    }
    Ok(way)
}

/// The parts of a path, the first one at the end.
fn parts(path: &Path) -> Vec<OsString> {
    path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
}

/// Whether a number stands for all users that are not mapped into the user namespace of this process.
fn is_anybody(owner: u32) -> bool {
    let has = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), _, Some(Ok(count))) = (numbers.next(), numbers.next(), numbers.next()) else {
            return false;
        };
        (first..first + count).contains(&u64::from(owner))
    };
    // Without the file there are no user namespaces.
    owner == UNMAPPED && fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !map.lines().any(has))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A runtime directory two directories down.
    fn place(name: &str) -> (PathBuf, PathBuf) {
        let root = env::temp_dir().join(format!("ouroboros-paths-{}-{name}", std::process::id()));
        let directory = root.join("a/node");
        make_runtime_dir(&directory).unwrap();
        (root, directory)
    }

    fn close(root: &Path) {
        fs::remove_dir_all(root).unwrap();
    }

    fn refused(result: Result<(), Error>, why: &str) {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(why), "{text}");
    }

    #[test]
    fn a_directory_above_it_that_others_can_write_is_refused_unless_it_is_sticky() {
        let (root, directory) = place("above");
        for (mode, good) in [(0o755, true), (0o775, false), (0o777, false), (0o1777, true)] {
            fs::set_permissions(root.join("a"), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(make_runtime_dir(&directory).is_ok(), good, "{mode:o}");
        }
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o1777)).unwrap();
        refused(make_runtime_dir(&directory), "nobody else can write");
        close(&root);
    }

    #[test]
    fn links_on_the_way_are_followed_and_what_they_pass_is_looked_at() {
        let (root, directory) = place("links");
        symlink("second", root.join("first")).unwrap();
        symlink(root.join("a"), root.join("second")).unwrap();
        make_runtime_dir(&root.join("first/node")).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        refused(make_runtime_dir(&root.join("first/node")), "nobody else can write");
        symlink("circle", root.join("circle")).unwrap();
        refused(check_socket(&root.join("circle/node/irm.sock")), "symbolic links");
        close(&root);
    }

    #[test]
    fn a_socket_that_is_a_link_is_refused() {
        let (root, directory) = place("socket");
        symlink("/run/ouroboros/irm.sock", directory.join("irm.sock")).unwrap();
        refused(
            check_socket(&directory.join("irm.sock")),
            "is a symbolic link and leads to the socket of another node",
        );
        close(&root);
    }
}
