//! Where descriptors of ours go: never to the places of standard input, output and error, which a program may have closed.
//! What it then prints would go into a flow. And what the kernel says of one.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

const LAST_STANDARD: i32 = 2;

/// The descriptor; in the place of a standard one, a copy above those instead of it.
pub fn above_standard(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    // A clone takes no place of those three.
    if descriptor.as_raw_fd() > LAST_STANDARD { Ok(descriptor) } else { descriptor.try_clone() }
}

/// Receive packets by one call of the kernel, as many as `lengths` has, each at the beginning of a place in `into`, which is
/// divided among them evenly. How many came, and their lengths: one that is longer than its place was cut. The socket need not
/// be one that does not block.
#[allow(unsafe_code)]
pub fn receive_many<const MOST: usize>(
    socket: BorrowedFd<'_>,
    into: &mut [u8],
    lengths: &mut [usize; MOST],
) -> io::Result<usize> {
    let place = into.len() / MOST;
    let start = into.as_mut_ptr();
    let mut vectors = std::array::from_fn::<_, MOST, _>(|at| libc::iovec {
        iov_base: start.wrapping_add(at * place).cast(),
        iov_len: place,
    });
    let mut messages = vectors.each_mut().map(|vector| {
        // SAFETY: of all zeroes it says that there are no address, no vectors and no control messages.
        let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (vector, 1);
        message
    });
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    let (first, most) = (messages.as_mut_ptr(), MOST as libc::c_uint);
    // SAFETY: the kernel writes to `messages`, and to the places, which are parts of `into` and lie beside each other.
    let count = unsafe { libc::recvmmsg(socket.as_raw_fd(), first, most, flags as _, std::ptr::null_mut()) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    lengths.iter_mut().zip(&messages).for_each(|(length, message)| *length = message.msg_len as usize);
    Ok(count)
}

/// The kernel's buffer for what arrives at a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Memory that is taken, and that there is, bytes; what packets take beside their own bytes is in it.
    pub held: u32,
    /// See `held`.
    pub room: u32,
    /// Packets that were dropped since the socket is there; from 2^32 on it counts from 0 again.
    pub dropped: u32,
}

/// How full the buffer of a socket for arrivals is.
#[allow(unsafe_code)]
pub fn backlog(socket: BorrowedFd<'_>) -> io::Result<Backlog> {
    // Numbers of the kernel's interface (linux/sock_diag.h): the first two, and the last.
    let mut words = [0_u32; 9];
    let mut length = size_of_val(&words) as libc::socklen_t;
    let place = words.as_mut_ptr().cast();
    // SAFETY: the kernel writes `length` bytes at most to `words`, which is as long, and whose bits mean numbers in any case.
    let failed =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, place, &raw mut length) };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    let [held, room, .., dropped] = words;
    Ok(Backlog { held, room, dropped })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn packets_of_one_call_come_whole_or_cut_each_to_its_place() -> io::Result<()> {
        let (near, far) = UnixDatagram::pair()?;
        let sent = [&b"one"[..], b"", b"longer than its place", b"four"];
        for packet in sent {
            near.send(packet)?;
        }
        let (mut into, mut lengths) = ([b'.'; 30], [0; 3]);
        assert_eq!(receive_many(far.as_fd(), &mut into, &mut lengths)?, 3);
        assert_eq!((lengths, &into), ([3, 0, 21], b"one.................longer tha"));
        assert_eq!(receive_many(far.as_fd(), &mut into, &mut lengths)?, 1);
        assert_eq!((lengths[0], &into[..4]), (4, &b"four"[..]));
        let nothing = receive_many(far.as_fd(), &mut into, &mut lengths);
        assert_eq!(nothing.map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
        Ok(())
    }

    #[test]
    fn a_socket_that_nobody_reads_is_full_and_counts_what_it_drops() -> io::Result<()> {
        let (near, far) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
        let empty = backlog(far.as_fd())?;
        assert_eq!((empty.held, empty.dropped), (0, 0));
        let (mut sent, mut last) = (0_u32, empty);
        while last.dropped < 10 {
            near.send_to(&[7; 1000], far.local_addr()?)?;
            (sent, last) = (sent + 1, backlog(far.as_fd())?);
            assert!(sent < 100_000, "{last:?}");
        }
        assert!(last.held > last.room / 2 && last.room == empty.room, "{last:?} {empty:?}");
        assert!(sent > last.dropped);
        Ok(())
    }
}
