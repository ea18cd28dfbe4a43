//! A socket that the engine cannot watch. Alone in its process, because it needs a descriptor of a certain number.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};

use ouroboros_io::engine::Engine;
use rustix::io::{Errno, fcntl_dupfd_cloexec};

#[test]
fn a_socket_that_cannot_be_watched_fails_its_layer_alone() {
    let engine = Engine::start().unwrap();
    let socket = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
    let (copy, number) = (socket.try_clone().unwrap(), socket.as_raw_fd());
    let member = engine.open_port(socket, None).unwrap();
    engine.close(member, false);
    // A poller knows a socket as long as there is a copy of it, by the number that it had.
    let again = fcntl_dupfd_cloexec(&copy, number).unwrap();
    assert_eq!(again.as_raw_fd(), number);
    let error = engine.open_port(again, None).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::EXIST.raw_os_error()));
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert!(engine.open_port(other.into(), None).is_ok());
    assert_eq!(engine.failure(), None);
}
