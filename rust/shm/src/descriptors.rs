//! Where descriptors of ours go: never to the places of standard input, output and error, which a program may have closed.
//! What it then prints would go into a flow.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

const LAST_STANDARD: i32 = 2;

/// The descriptor; in the place of a standard one, a copy above those instead of it.
pub fn above_standard(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    // A clone takes no place of those three.
    if descriptor.as_raw_fd() > LAST_STANDARD { Ok(descriptor) } else { descriptor.try_clone() }
}
