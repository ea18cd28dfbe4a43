//! `libouroboros-irm` for C programs, on our node: the names, numbers and layouts of version 0.23 of the prototype.
//!
//! All functions return 0, or a number as said, or a negative error number. Pointers come from C, and are trusted to lead to
//! what the header says or to be NULL.

mod types;

use std::env;
use std::ffi::{c_char, c_int};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::ptr;

use libc::{pid_t, ssize_t};
use ouroboros_client::Client;
use ouroboros_client::c::{PerProcess, call_failed, contained, text};
use ouroboros_client::error::{EIPCP, ENAME};
use ouroboros_client::message::{IpcpEntry, NameEntry, OfType, Request, Settings, Udp};
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::types::{IpcpConfig, IpcpListInfo, NameInfo, QosSpec};

/// Option of `irm_bind_program`: the node starts the program when it is needed.
const BIND_AUTO: u16 = 1;

/// `-E…` or what the call gives.
type Outcome<T> = Result<T, c_int>;

static CLIENT: PerProcess<Client> = PerProcess::new(Client::new, after_fork);

/// In the child of a fork: the connections are the parent's.
unsafe extern "C" fn after_fork() {
    CLIENT.leave(|_| ());
}

/// Send a request; `refused` is what it fails with when the node refuses.
fn ask<T: DeserializeOwned>(request: &Request<'_>, refused: c_int) -> Outcome<T> {
    CLIENT.get().request(request).map_err(|error| call_failed(&error, refused))
}

fn tell(request: &Request<'_>, refused: c_int) -> Outcome<()> {
    ask::<IgnoredAny>(request, refused).map(|_| ())
}

/// Run one call and turn what came of it into the number that C gets.
fn call(work: impl FnOnce() -> Outcome<()>) -> c_int {
    contained(|| work().map_or_else(|error| error, |()| 0))
}

/// A number of entries, or an error.
struct Count(ssize_t);

impl From<c_int> for Count {
    fn from(error: c_int) -> Self {
        Count(error as ssize_t)
    }
}

/// # Safety
///
/// As for `text`.
unsafe fn name<'a>(pointer: *const c_char) -> Outcome<&'a str> {
    if pointer.is_null() {
        return Err(-libc::EINVAL);
    }
    // SAFETY: as the caller says.
    unsafe { text(pointer) }.ok_or(-ENAME)
}

// --- IPC processes

/// Create an IPC process; returns its id.
///
/// # Safety
///
/// `ipcp` is NULL or a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn irm_create_ipcp(ipcp: *const c_char, kind: c_int) -> pid_t {
    contained(|| {
        let create = || {
            // SAFETY: as the caller says.
            let name = unsafe { name(ipcp) }?;
            let kind = types::type_word(kind).ok_or(-libc::EINVAL)?;
            ask::<pid_t>(&Request::CreateIpcp { name, kind }, EIPCP)
        };
        create().unwrap_or_else(|error| error)
    })
}

/// Destroy an IPC process.
#[unsafe(no_mangle)]
pub extern "C" fn irm_destroy_ipcp(pid: pid_t) -> c_int {
    call(|| tell(&Request::DestroyIpcp { ipcp: pid.into() }, EIPCP))
}

/// List the IPC processes; the caller frees the array. Returns how many there are.
///
/// # Safety
///
/// `ipcps` is NULL or leads to room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn irm_list_ipcps(ipcps: *mut *mut IpcpListInfo) -> ssize_t {
    contained(|| {
        let list = || {
            let mut infos: Vec<_> = list_ipcps()?.iter().map(IpcpListInfo::new).collect();
            infos.sort_by_key(IpcpListInfo::order);
            // SAFETY: as the caller says.
            unsafe { give(ipcps, infos) }
        };
        Count(list().unwrap_or_else(|error| error as ssize_t))
    })
    .0
}

fn list_ipcps() -> Outcome<Vec<IpcpEntry>> {
    ask(&Request::ListIpcps, libc::EPERM)
}

fn find(pid: pid_t) -> Outcome<IpcpEntry> {
    list_ipcps()?.into_iter().find(|each| each.id == i64::from(pid)).ok_or(-EIPCP)
}

/// Make an IPC process the first member of a layer.
///
/// # Safety
///
/// `conf` is NULL or leads to a configuration.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn irm_bootstrap_ipcp(pid: pid_t, conf: *const IpcpConfig) -> c_int {
    call(|| {
        // SAFETY: as the caller says.
        let conf = unsafe { conf.as_ref() }.ok_or(-libc::EINVAL)?;
        let layer = conf.layer_name().filter(|layer| !layer.is_empty()).ok_or(-libc::EINVAL)?;
        let kind = types::type_word(conf.kind).ok_or(-libc::EINVAL)?;
        if find(pid)?.kind != kind {
            return Err(-libc::EINVAL);
        }
        let (ip, dns);
        let of_type = if let Some((our, server, port)) = conf.udp() {
            (ip, dns) = (our.to_string(), server.to_string());
            OfType::Udp(Udp { ip: &ip, dns: &dns, port })
        } else if conf.is_unicast() {
            OfType::Unicast(conf.unicast().ok_or(-libc::EINVAL)?)
        } else if conf.is_ethernet() {
            OfType::Ethernet(conf.ethernet().ok_or(-libc::EINVAL)?)
        } else {
            OfType::None
        };
        // Names are hashed in their own way over UDP.
        let hash = match of_type {
            OfType::Udp(_) => types::DEFAULT_HASH,
            _ => types::hash(conf.hash).ok_or(-libc::EINVAL)?,
        };
        tell(&Request::BootstrapIpcp { ipcp: pid.into(), layer, settings: Settings { kind, hash, of_type } }, EIPCP)
    })
}

/// Make an IPC process a member of a layer that exists. It is connected to nobody by that.
///
/// # Safety
///
/// `dst` is NULL or a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn irm_enroll_ipcp(pid: pid_t, dst: *const c_char) -> c_int {
    call(|| {
        // SAFETY: as the caller says.
        let name = unsafe { name(dst) }?;
        check_networked(pid)?;
        tell(&Request::EnrollIpcp { ipcp: pid.into(), name }, EIPCP)
    })
}

/// Connect a part of an IPC process to that of a neighbour, for good. Succeeds when they are connected.
///
/// # Safety
///
/// `dst` and `component` are NULL or texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn irm_connect_ipcp(
    pid: pid_t,
    dst: *const c_char,
    component: *const c_char,
    qos: QosSpec,
) -> c_int {
    call(|| {
        // SAFETY: as the caller says.
        let (name, component) = unsafe { (name(dst)?, name(component)?) };
        check_networked(pid)?;
        tell(&Request::ConnectIpcp { ipcp: pid.into(), component, name, qos: qos.into() }, EIPCP)
    })
}

/// Undo that.
///
/// # Safety
///
/// `dst` and `component` are NULL or texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn irm_disconnect_ipcp(pid: pid_t, dst: *const c_char, component: *const c_char) -> c_int {
    call(|| {
        // SAFETY: as the caller says.
        let (name, component) = unsafe { (name(dst)?, name(component)?) };
        check_networked(pid)?;
        tell(&Request::DisconnectIpcp { ipcp: pid.into(), component, name }, EIPCP)
    })
}

/// Whether the type has members elsewhere.
fn check_networked(pid: pid_t) -> Outcome<()> {
    let kind = find(pid)?.kind;
    ["unicast", "broadcast"].contains(&kind.as_str()).then_some(()).ok_or(-EIPCP)
}

// --- names

/// Create a name. One that exists stays as it is.
///
/// # Safety
///
/// `info` is NULL or leads to a name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn irm_create_name(info: *const NameInfo) -> c_int {
    call(|| {
        // SAFETY: as the caller says.
        let info = unsafe { info.as_ref() }.ok_or(-libc::EINVAL)?;
        let policy = types::policy_word(info.policy).ok_or(-libc::EINVAL)?;
        let paths = info.paths().ok_or(-libc::EINVAL)?.map(|path| path.map(real).transpose());
        let paths = paths.into_iter().collect::<Outcome<Vec<_>>>()?;
        let mut security = [None; 6];
        for (target, path) in security.iter_mut().zip(&paths) {
            *target = path.as_deref();
        }
        let security = Some(security).filter(|paths| paths.iter().any(Option::is_some));
        tell(&Request::CreateName { name: info.name().ok_or(-ENAME)?, policy, security }, ENAME)
    })
}

/// The absolute path of a file that is there.
fn real(path: &str) -> Outcome<String> {
    let real = fs::canonicalize(path).map_err(|error| -error.raw_os_error().unwrap_or(libc::ENOENT))?;
    real.into_os_string().into_string().map_err(|_| -libc::EINVAL)
}

/// Destroy a name and everything bound to it.
///
/// # Safety
///
/// `known` is NULL or a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn irm_destroy_name(known: *const c_char) -> c_int {
    // SAFETY: as the caller says.
    call(|| tell(&Request::DestroyName { name: unsafe { name(known) }? }, ENAME))
}

/// List the names; the caller frees the array. Returns how many there are.
///
/// # Safety
///
/// `names` is NULL or leads to room for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn irm_list_names(names: *mut *mut NameInfo) -> ssize_t {
    contained(|| {
        let list = || {
            let mut entries: Vec<NameEntry> = ask(&Request::ListNames, libc::EPERM)?;
            entries.sort_by(|one, other| one.name.cmp(&other.name));
            // SAFETY: as the caller says.
            unsafe { give(names, entries.iter().map(NameInfo::new).collect()) }
        };
        Count(list().unwrap_or_else(|error| error as ssize_t))
    })
    .0
}

/// Publish a name in the layer of an IPC process.
///
/// # Safety
///
/// `known` is NULL or a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn irm_reg_name(known: *const c_char, pid: pid_t) -> c_int {
    // SAFETY: as the caller says.
    call(|| tell(&Request::RegisterName { name: unsafe { name(known) }?, ipcp: pid.into() }, ENAME))
}

/// Take a name out of the layer of an IPC process.
///
/// # Safety
///
/// `known` is NULL or a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn irm_unreg_name(known: *const c_char, pid: pid_t) -> c_int {
    // SAFETY: as the caller says.
    call(|| tell(&Request::UnregisterName { name: unsafe { name(known) }?, ipcp: pid.into() }, ENAME))
}

// --- bindings

/// Let every process of a program accept flows for a name. The program is a path, or looked up on PATH.
///
/// # Safety
///
/// `program` and `to` are NULL or texts, `argv` is NULL or leads to `argc` texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn irm_bind_program(
    program: *const c_char,
    to: *const c_char,
    opts: u16,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    call(|| {
        // SAFETY: as the caller says.
        let (program, name, args) = unsafe { (name(program)?, name(to)?, arguments(argc, argv)?) };
        let auto = opts & BIND_AUTO != 0;
        if opts & !BIND_AUTO != 0 || (!auto && !args.is_empty()) {
            return Err(-libc::EINVAL);
        }
        let path = executable(program)?;
        let path = path.to_str().ok_or(-libc::EINVAL)?;
        tell(&Request::BindProgram { path, name, auto, args: &args }, libc::EPERM)
    })
}

/// # Safety
///
/// `argv` is NULL or leads to `argc` texts.
unsafe fn arguments<'a>(argc: c_int, argv: *const *const c_char) -> Outcome<Vec<&'a str>> {
    let count = usize::try_from(argc).map_err(|_| -libc::EINVAL)?;
    if argv.is_null() && count > 0 {
        return Err(-libc::EINVAL);
    }
    // SAFETY: as the caller says.
    (0..count).map(|index| unsafe { text(*argv.add(index)) }.ok_or(-libc::EINVAL)).collect()
}

/// The absolute path of a program that can be executed. A symbolic link is not followed: a process is recognised by the name
/// that it was started under.
fn executable(program: &str) -> Outcome<PathBuf> {
    let here = Path::new(program);
    let found = if here.is_file() {
        here.to_owned()
    } else if program.contains('/') {
        return Err(-libc::ENOENT);
    } else {
        let path = env::var_os("PATH").unwrap_or_default();
        let on_path = env::split_paths(&path).map(|place| place.join(program)).find(|file| is_executable(file));
        on_path.ok_or(-libc::ENOENT)?
    };
    if !is_executable(&found) {
        return Err(-libc::EACCES);
    }
    std::path::absolute(found).map_err(|_| -libc::ENOENT)
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|status| status.is_file() && status.permissions().mode() & 0o111 != 0)
}

/// Undo `irm_bind_program`; running processes stay bound. The program is a path or its last part.
///
/// # Safety
///
/// `program` and `from` are NULL or texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn irm_unbind_program(program: *const c_char, from: *const c_char) -> c_int {
    call(|| {
        // SAFETY: as the caller says.
        let (program, name) = unsafe { (name(program)?, name(from)?) };
        let program = program.rsplit('/').next().unwrap_or_default();
        tell(&Request::UnbindProgram { program, name }, libc::EPERM)
    })
}

/// Let a process, or an IPC process, accept flows for a name.
///
/// # Safety
///
/// `to` is NULL or a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn irm_bind_process(pid: pid_t, to: *const c_char) -> c_int {
    // SAFETY: as the caller says.
    call(|| tell(&Request::BindProcess { pid: pid.into(), name: unsafe { name(to) }? }, libc::EPERM))
}

/// Undo that.
///
/// # Safety
///
/// `from` is NULL or a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn irm_unbind_process(pid: pid_t, from: *const c_char) -> c_int {
    // SAFETY: as the caller says.
    call(|| tell(&Request::UnbindProcess { pid: pid.into(), name: unsafe { name(from) }? }, libc::EPERM))
}

// --- helpers

/// Give C an array of its own, NULL when it is empty; returns how many entries it has.
///
/// # Safety
///
/// `target` is NULL or leads to room for a pointer.
unsafe fn give<T>(target: *mut *mut T, entries: Vec<T>) -> Outcome<ssize_t> {
    // SAFETY: as the caller says.
    let target = unsafe { target.as_mut() }.ok_or(-libc::EINVAL)?;
    *target = ptr::null_mut();
    if entries.is_empty() {
        return Ok(0);
    }
    // SAFETY: a size; `free` takes what it gives.
    let array: *mut T = unsafe { libc::malloc(size_of::<T>() * entries.len()) }.cast();
    if array.is_null() {
        return Err(-libc::ENOMEM);
    }
    let count = entries.len();
    for (index, entry) in entries.into_iter().enumerate() {
        // SAFETY: there is room for that many, and malloc aligns for all types.
        unsafe { array.add(index).write(entry) };
    }
    *target = array;
    Ok(count as ssize_t)
}
