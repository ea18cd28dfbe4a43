//! `ouroboros-rawsock DEVICE KIND` passes a packet socket on by the Unix socket that is its standard input.
//!
//! KIND is an ethertype, in hexadecimal digits, or `llc`. A line in root's file has to allow it: a device and its kinds. The
//! socket is bound, receives frames of its kind without a VLAN tag, and its filter is locked. Whoever has it can send any
//! frame, and bind it to another device, but its filter stays. This program is the only one that needs `cap_net_raw`.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{self, IoSlice, Read};
use std::mem::{size_of, size_of_val, zeroed};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::process::ExitCode;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// What is allowed. Nobody but root may have written it.
const ALLOWED: &str = "/etc/ouroboros/ethernet";
/// IPv4, ARP, IPv6, and VLAN tags, whatever is in the file.
const NEVER: [u16; 5] = [0x0800, 0x0806, 0x86dd, 0x8100, 0x88a8];
/// Shorter ones are lengths of LLC frames.
const LEAST_ETHERTYPE: u16 = 0x0600;
/// SNAP, by which LLC frames carry ethertypes again.
const SNAP: u32 = 0xaa;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dix(u16),
    Llc,
}

impl Kind {
    fn parse(word: &str) -> Result<Self, String> {
        match (word, u16::from_str_radix(word, 16)) {
            ("llc", _) => Ok(Kind::Llc),
            (_, Ok(number)) if number >= LEAST_ETHERTYPE && !NEVER.contains(&number) => Ok(Kind::Dix(number)),
            _ => Err(format!("{word:?} is neither llc nor an ethertype that can be given away")),
        }
    }

    fn protocol(self) -> u16 {
        if let Kind::Dix(number) = self { number } else { libc::ETH_P_802_2 as u16 }
    }

    /// A program of the kernel's classic packet filter: (code, jump if true, jump if false, operand). Jumps lead to the end,
    /// which gives nothing. Of a VLAN that the kernel has no device for, it takes off the tag: the frame is for another host.
    fn filter(self) -> Vec<libc::sock_filter> {
        const EXTRA: u32 = 0xffff_f000;
        let (tagged, packet_type, other_host) = (EXTRA + 48, EXTRA + 4, 3);
        let one = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let (byte, half, equal, greater, give) = (0x30, 0x28, 0x15, 0x25, 0x06);
        let mut program = match self {
            Kind::Dix(number) => vec![one(half, 0, 0, 12), one(equal, 0, 5, number.into())],
            Kind::Llc => {
                vec![one(half, 0, 0, 12), one(greater, 7, 0, 1500), one(byte, 0, 0, 14), one(equal, 5, 0, SNAP)]
            }
        };
        program.extend([one(byte, 0, 0, tagged), one(equal, 0, 3, 0), one(byte, 0, 0, packet_type)]);
        program.extend([one(equal, 1, 0, other_host), one(give, 0, 0, 0x40000), one(give, 0, 0, 0)]);
        program
    }
}

/// Whether a line of the file allows that kind of frames on that device.
fn allows(text: &str, device: &str, kind: Kind) -> bool {
    text.lines().any(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        words.next() == Some(device) && words.any(|word| Kind::parse(word) == Ok(kind))
    })
}

/// The text of root's file.
fn read_allowed() -> Result<String, String> {
    let wrong = |error: io::Error| format!("{ALLOWED}, in which root allows devices, cannot be read: {error}");
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(ALLOWED).map_err(wrong)?;
    let about = file.metadata().map_err(wrong)?;
    if about.uid() != 0 || about.mode() & 0o022 != 0 || !about.is_file() {
        return Err(format!("{ALLOWED} has to be a file of root's that nobody else can write"));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(wrong)?;
    Ok(text)
}

fn check(outcome: libc::c_int) -> io::Result<libc::c_int> {
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(outcome) }
}

fn set<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    let (at, length) = (std::ptr::from_ref(value).cast(), size_of::<T>() as libc::socklen_t);
    // SAFETY: `value` is there during the call, which reads as many bytes as it has.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, at, length) }).map(drop)
}

/// It gets nothing before the filter is there.
fn open(device: &str, kind: Kind) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let number = check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: it is new, and ours.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let mut filter = kind.filter();
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    set(&socket, libc::SO_ATTACH_FILTER, &program)?;
    set(&socket, libc::SO_LOCK_FILTER, &1i32)?;
    let name = CString::new(device)?;
    // SAFETY: a string that ends with a zero byte.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes are a valid address.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = kind.protocol().to_be();
    address.sll_ifindex = index.cast_signed();
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is there during the call, which reads as many bytes as it has.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    Ok(socket)
}

fn serve(device: &str, kind: &str) -> Result<(), String> {
    let wanted = Kind::parse(kind)?;
    if !allows(&read_allowed()?, device, wanted) {
        return Err(format!("{ALLOWED} has no line that allows {kind} on {device}"));
    }
    let socket = open(device, wanted).map_err(|error| format!("no packet socket on {device}: {error}"))?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    let socket = [socket.as_fd()];
    rights.push(SendAncillaryMessage::ScmRights(&socket));
    sendmsg(io::stdin(), &[IoSlice::new(b"s")], &mut rights, SendFlags::NOSIGNAL)
        .map_err(|error| format!("it cannot be passed on by the standard input: {error}"))?;
    Ok(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match words.as_slice() {
        [device, kind] => serve(device, kind),
        _ => Err("usage: ouroboros-rawsock DEVICE (ETHERTYPE | llc), with a Unix socket as standard input".into()),
    };
    outcome.map_or_else(
        |why| {
            eprintln!("{why}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
