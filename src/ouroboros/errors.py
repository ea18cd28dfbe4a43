"""Every exception of the package.

::

    OuroborosError
    ├── FlowException                      anything that goes wrong with one flow
    │   ├── FlowAllocatedException         the Flow object already holds a flow
    │   ├── FlowNotAllocatedException      ... or holds none (never allocated, or deallocated)   [ValueError]
    │   ├── FlowNameException              nobody offers this name here                          [LookupError]
    │   ├── FlowRefusedException           the name exists, but the flow was refused             [ConnectionRefusedError]
    │   │   ├── FlowCryptException         ... because the two sides agree on no encryption
    │   │   └── FlowAuthException          ... because a side could not prove who it is
    │   ├── FlowQosException               no layer can give this quality of service             [ValueError]
    │   ├── FlowDownException              the flow is gone: allocate a new one                  [ConnectionError]
    │   │   └── FlowPeerException          ... because the peer died                             [ConnectionResetError]
    │   ├── FlowTimeoutException           the time limit of the call ran out                    [TimeoutError]
    │   ├── FlowWouldBlockException        non-blocking, and it would have to wait               [BlockingIOError]
    │   ├── FlowPermissionException        the flags of the flow forbid it                       [PermissionError]
    │   ├── FlowSizeException              the packet is larger than the limit it names          [ValueError]
    │   └── FlowEventError                 no event to take, or no such set or member
    │       └── FlowEventTimeoutException  no event within the time limit                        [TimeoutError]
    ├── IrmError                           the IRM refused a management request
    │   ├── NameError                      ... about a name
    │   ├── BindError                      ... about a binding
    │   └── IpcpCreateError, IpcpBootstrapError, IpcpEnrollError, IpcpConnectError
    ├── NodeError                          no node, or the node went away  [IrmError, FlowException, ConnectionError]
    │   └── NodeLimitError                 a limit of the node is reached
    ├── ProtocolError                      the other side of a connection broke the protocol (its fault, not the caller's)
    └── UnsupportedError                   not built yet, and says so                            [NotImplementedError]

The names in the first column are those that PyOuroboros programs catch; the bracketed ones are what the standard library
raises for the same trouble, and catching those works too.
"""


class OuroborosError(Exception):
    """Base of every exception in this package."""


class FlowException(OuroborosError):
    """Something went wrong with a flow."""


class FlowAllocatedException(FlowException):
    """The Flow object already holds a flow: deallocate it first, or use a new object."""


class FlowNotAllocatedException(FlowException, ValueError):
    """The Flow object holds no flow: it was never allocated, or is deallocated."""


class FlowNameException(FlowException, LookupError):
    """Nobody offers the destination name on this node or in its layers, or nobody does any more."""


class FlowRefusedException(FlowException, ConnectionRefusedError):
    """The name exists, but the flow was refused; the text says by whom and why."""


class FlowCryptException(FlowRefusedException):
    """The two sides agree on no encryption, or what is configured for one cannot be used; the text says what was wanted.
    There is no flow in clear instead."""


class FlowAuthException(FlowRefusedException):
    """A side could not prove who it is, or is not allowed; the text says which and why."""


class FlowQosException(FlowException, ValueError):
    """No layer can give the quality of service that was asked for."""


class FlowDownException(FlowException, ConnectionError):
    """The flow is gone, usually because the peer deallocated it. Allocate a new one."""


class FlowPeerException(FlowDownException, ConnectionResetError):
    """The flow is gone because the peer's process died or stopped answering."""


class FlowTimeoutException(FlowException, TimeoutError):
    """The time limit given for the call, or set on the flow, ran out."""


class FlowWouldBlockException(FlowException, BlockingIOError):
    """The flow is non-blocking and the call would have to wait."""


class FlowPermissionException(FlowException, PermissionError):
    """The flags of the flow (or of its peer) forbid the operation."""


class FlowSizeException(FlowException, ValueError):
    """A packet is larger than the limit that the text names; nothing was sent, nothing is lost."""


class FlowEventError(FlowException):
    """A flow set or an event queue cannot do what was asked; the text says why."""


class FlowEventTimeoutException(FlowEventError, TimeoutError):
    """No event came within the time limit of `FlowSet.wait`."""


class FlowDeallocWarning(ResourceWarning):
    """A Flow was dropped without dealloc()."""


class IrmError(OuroborosError):
    """The IRM refused a management request; the text says why."""


class NameError(IrmError):  # noqa: A001 - the name PyOuroboros programs import
    """A request about a name was refused."""


class BindError(IrmError):
    """A request about a binding was refused."""


class IpcpCreateError(IrmError):
    """An IPC process could not be created or destroyed."""


class IpcpBootstrapError(IrmError):
    """An IPC process could not be bootstrapped into a layer."""


class IpcpEnrollError(IrmError):
    """An IPC process could not enroll in a layer."""


class IpcpConnectError(IrmError):
    """An IPC process could not be connected to, or disconnected from, a neighbour."""


class NodeError(IrmError, FlowException, ConnectionError):
    """There is no node to talk to, or it went away during the call."""


class NodeLimitError(NodeError):
    """A limit of the node is reached; the text names it."""


class ProtocolError(OuroborosError):
    """The other side of a connection sent something that its protocol does not allow."""


class UnsupportedError(OuroborosError, NotImplementedError):
    """The request is well-formed, but this version cannot do it yet."""
