//! What can go wrong with a request, and the number that stands for it in C.

use std::fmt;

/// The flow is not allocated.
pub const ENOTALLOC: i32 = 1000;
/// The node cannot be reached, or does not keep to the protocol.
pub const EIRMD: i32 = 1002;
/// An IPC process cannot do it, or nobody answers for the name.
pub const EIPCP: i32 = 1003;
/// The flow is down.
pub const EFLOWDOWN: i32 = 1005;
/// The flow is down because the peer is gone.
pub const EFLOWPEER: i32 = 1006;
/// Something is wrong with a name.
pub const ENAME: i32 = 1007;
/// Encryption failed, or was asked for and not to be had.
pub const ECRYPT: i32 = 1008;
/// Somebody could not prove who they are.
pub const EAUTH: i32 = 1009;

/// Why a request was not granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// There is no node to talk to, or it went away; the text says more.
    Node(String),
    /// This process is out of descriptors or memory.
    Limit(String),
    /// The node said something that is no answer.
    Protocol(String),
    /// A signal arrived, and the request was withdrawn.
    Interrupted,
    /// The node refused: the class of the exception in Python, and the reason.
    Refused {
        /// Name of a class in `ouroboros.errors`.
        kind: String,
        /// What happened and what to do.
        text: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Node(text) | Error::Limit(text) | Error::Protocol(text) => formatter.write_str(text),
            Error::Interrupted => formatter.write_str("interrupted by a signal"),
            Error::Refused { kind, text } => write!(formatter, "{kind}: {text}"),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    /// The error number, positive.
    #[must_use]
    pub fn number(&self) -> i32 {
        match self {
            Error::Node(_) | Error::Protocol(_) => EIRMD,
            Error::Limit(_) => libc::ENOMEM,
            Error::Interrupted => libc::EINTR,
            Error::Refused { kind, .. } => refusal(kind),
        }
    }
}

impl Error {
    /// The error number, positive, of a call whose refusals have one of their own: also when what the node found wrong was
    /// something else, for instance the name in a request about a layer.
    #[must_use]
    pub fn number_of_call(&self, refused: i32) -> i32 {
        match self {
            Error::Refused { kind, .. } if !ABOUT_THE_NODE.contains(&kind.as_str()) => refused,
            _ => self.number(),
        }
    }
}

/// Refusals that have nothing to do with the call.
const ABOUT_THE_NODE: [&str; 4] = ["NodeError", "NodeLimitError", "ProtocolError", "UnsupportedError"];

fn refusal(kind: &str) -> i32 {
    match kind {
        "FlowTimeoutException" => libc::ETIMEDOUT,
        "FlowNameException" | "NameError" => ENAME,
        "FlowCryptException" => ECRYPT,
        "FlowAuthException" => EAUTH,
        "FlowRefusedException" | "IpcpCreateError" | "IpcpBootstrapError" | "IpcpEnrollError" | "IpcpConnectError" => {
            EIPCP
        }
        "FlowQosException" => libc::EINVAL,
        "NodeError" | "ProtocolError" => EIRMD,
        "NodeLimitError" => libc::ENOMEM,
        "UnsupportedError" => libc::ENOTSUP,
        // Bindings, permissions, and what a newer node may come up with.
        _ => libc::EPERM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: &str) -> i32 {
        Error::Refused { kind: kind.into(), text: String::new() }.number()
    }

    #[test]
    fn each_class_of_refusal_has_its_number() {
        assert_eq!(refused("FlowTimeoutException"), 110);
        assert_eq!(refused("FlowNameException"), 1007);
        assert_eq!(refused("FlowCryptException"), 1008);
        assert_eq!(refused("FlowAuthException"), 1009);
        assert_eq!(refused("UnsupportedError"), 95);
        assert_eq!(refused("SomethingNewer"), 1);
    }
}
