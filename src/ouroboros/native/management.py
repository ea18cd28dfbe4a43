"""Managing the daemon of the C prototype: the requests of `ouroboros.irm`, by the functions of its management library.

The library says no more than that something failed, so what can be known before is checked here.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Callable
from typing import Any

import cffi

from ouroboros.errors import (
    BindError,
    IpcpBootstrapError,
    IpcpConnectError,
    IpcpCreateError,
    IpcpEnrollError,
    IrmError,
    NameError,
    NodeError,
    UnsupportedError,
)
from ouroboros.ipcp_config import (
    EthConfig,
    IpcpConfig,
    IpcpType,
    LoadBalancePolicy,
    Udp4Config,
    Udp6Config,
    UnicastConfig,
)
from ouroboros.native import declarations as c
from ouroboros.native.calls import run
from ouroboros.native.library import Library
from ouroboros.qos import QoSSpec
from ouroboros.wire import control as messages
from ouroboros.wire.control import IpcpEntry, NameEntry

#: Name that the daemon gives to the layer of an IPC process that is in none.
_NOT_ENROLLED = "Not enrolled."

_TYPES = {kind.word: kind for kind in IpcpType}
_POLICIES = {"round-robin": LoadBalancePolicy.ROUND_ROBIN, "spillover": LoadBalancePolicy.SPILL}


class Management:
    """The daemon behind one library. Raises the exceptions of `ouroboros.irm`, or a plain `IrmError`."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._ffi = library.ffi
        libc = cffi.FFI()
        libc.cdef(c.LIBC)
        self._libc = libc.dlopen(None)
        self._requests: dict[type, Callable[[Any], Any]] = {
            messages.CreateIpcp: lambda request: self._create_ipcp(request.name, request.type),
            messages.DestroyIpcp: lambda request: self._destroy_ipcp(request.ipcp),
            messages.ListIpcps: lambda request: self._list_ipcps(),
            messages.CreateName: self._create_name,
            messages.DestroyName: lambda request: self._destroy_name(request.name),
            messages.ListNames: lambda request: self._list_names(),
            messages.RegisterName: lambda request: self._register("irm_reg_name", request.name, request.ipcp),
            messages.UnregisterName: lambda request: self._register("irm_unreg_name", request.name, request.ipcp),
            messages.BindProgram: self._bind_program,
            messages.UnbindProgram: lambda request: self._unbind_program(request.program, request.name),
            messages.BindProcess: lambda request: self.bind_process(request.pid, request.name),
            messages.UnbindProcess: lambda request: self._unbind_process(request.pid, request.name),
        }

    def request(self, request: messages.Request) -> Any:  # noqa: ANN401
        """Carry out a request of `ouroboros.irm`. Returns the same as our node."""
        handle = self._requests.get(type(request))
        if handle is None:
            raise UnsupportedError(
                f"the C Ouroboros cannot do this ({type(request).__name__}): only our node can; `ouroboros info` tells which"
                " is in use, and why"
            )
        return handle(request)

    # --- IPC processes

    def bootstrap_ipcp(self, pid: int, conf: IpcpConfig) -> None:
        """As `ouroboros.irm.bootstrap_ipcp`, for all types."""
        if conf.impair:
            raise UnsupportedError("the C Ouroboros cannot impair a layer: leave `impair` out")
        if not conf.layer_name:
            raise IpcpBootstrapError("the configuration has no layer name: set layer_name")
        ipcp = self._find(pid, IpcpBootstrapError)
        if ipcp.type != conf.ipcp_type.word:
            raise IpcpBootstrapError(
                f"IPC process {ipcp.name!r} is of type {ipcp.type}, its configuration of type {conf.ipcp_type.word}"
            )
        if ipcp.layer:
            raise IpcpBootstrapError(f"IPC process {ipcp.name!r} is in layer {ipcp.layer!r} already")
        config = self._configuration(conf)
        self._call("irm_bootstrap_ipcp", pid, config, refused=IpcpBootstrapError, doing=f"bootstrap {ipcp.name!r}")

    def enroll_ipcp(self, pid: int, dst: str) -> None:
        """As `ouroboros.irm.enroll_ipcp`."""
        ipcp = self._find(pid, IpcpEnrollError)
        doing = f"enroll {ipcp.name!r} with {dst!r}"
        self._call("irm_enroll_ipcp", pid, _text(dst), refused=IpcpEnrollError, doing=doing)

    def connect_ipcp(self, pid: int, component: str, dst: str, qos: QoSSpec | None) -> None:
        """As `ouroboros.irm.connect_ipcp`."""
        ipcp = self._find(pid, IpcpConnectError)
        arguments = (pid, _text(dst), component.encode(), self._qos(qos or QoSSpec())[0])
        doing = f"connect {ipcp.name!r} to {dst!r}"
        self._call("irm_connect_ipcp", *arguments, refused=IpcpConnectError, doing=doing)

    def disconnect_ipcp(self, pid: int, component: str, dst: str) -> None:
        """As `ouroboros.irm.disconnect_ipcp`."""
        ipcp = self._find(pid, IpcpConnectError)
        doing = f"disconnect {ipcp.name!r} from {dst!r}"
        self._call("irm_disconnect_ipcp", pid, _text(dst), component.encode(), refused=IpcpConnectError, doing=doing)

    def _create_ipcp(self, name: str, word: str) -> int:
        kind = self._type_number(_TYPES[word])
        before = self._list_ipcps()
        if any(ipcp.name == name for ipcp in before):
            raise IpcpCreateError(f"there is an IPC process {name!r} already: choose another name")
        self._call("irm_create_ipcp", _text(name, 254), kind, refused=IpcpCreateError, doing=f"create {name!r}")
        # The result is no pid.
        known = {ipcp.id for ipcp in before}
        for ipcp in self._list_ipcps():
            if ipcp.name == name and ipcp.id not in known:
                return ipcp.id
        raise IpcpCreateError(f"IPC process {name!r} was created, but is gone already; see the log of the daemon")

    def _destroy_ipcp(self, pid: int) -> None:
        # The daemon would end any process whose pid it is given.
        ipcp = self._find(pid, IpcpCreateError)
        self._call("irm_destroy_ipcp", pid, refused=IpcpCreateError, doing=f"destroy {ipcp.name!r}")

    def _list_ipcps(self) -> list[IpcpEntry]:
        return self._list("irm_list_ipcps", "struct ipcp_list_info **", "list IPC processes", self._ipcp_entry)

    def _ipcp_entry(self, info: Any) -> IpcpEntry:  # noqa: ANN401
        layer = self._string(info.layer)
        state = "boot" if layer == _NOT_ENROLLED else "operational"
        kind = IpcpType(info.type).word if info.type in set(IpcpType) else "unknown"
        return IpcpEntry(info.pid, self._string(info.name), kind, state, "" if state == "boot" else layer, "")

    def _find(self, pid: int, refused: type[IrmError]) -> IpcpEntry:
        for ipcp in self._list_ipcps():
            if ipcp.id == pid:
                return ipcp
        raise refused(f"there is no IPC process {pid}; `irm ipcp list` shows them")

    def _type_number(self, kind: IpcpType) -> int:
        if kind is IpcpType.UDP6 and self._library.version < (0, 22):
            raise UnsupportedError("the C Ouroboros of version 0.21 has no layers of type udp6")
        return int(kind)

    # --- names

    def _create_name(self, request: messages.CreateName) -> None:
        name, doing = _text(request.name), f"create name {request.name!r}"
        policy = int(_POLICIES[request.policy])
        paths = request.security or messages.NameSecurity()
        if paths.server_encryption or paths.client_encryption:
            raise UnsupportedError(
                "the C Ouroboros loses the path of an encryption file: put it where it is looked for, as enc.conf in the"
                " directory of the name"
            )
        if self._library.version < (0, 22):
            if paths != messages.NameSecurity():
                raise UnsupportedError("the C Ouroboros of version 0.21 has no keys and certificates of names")
            self._call("irm_create_name", name, policy, refused=NameError, doing=doing)
            return
        info = self._ffi.new("struct name_info *", {"name": name, "pol_lb": policy})
        info.server_crt, info.server_key = _path(paths.server_certificate), _path(paths.server_key)
        info.client_crt, info.client_key = _path(paths.client_certificate), _path(paths.client_key)
        self._call("irm_create_name", info, refused=NameError, doing=doing)

    def _destroy_name(self, name: str) -> None:
        self._call("irm_destroy_name", _text(name), refused=NameError, doing=f"destroy name {name!r}")

    def _list_names(self) -> list[NameEntry]:
        return self._list("irm_list_names", "struct name_info **", "list names", self._name_entry)

    def _name_entry(self, info: Any) -> NameEntry:  # noqa: ANN401
        # The library fills in no more than these two.
        policy = "spillover" if info.pol_lb == LoadBalancePolicy.SPILL else "round-robin"
        return NameEntry(self._string(info.name), policy, [], [], [])

    def _register(self, function: str, name: str, pid: int) -> None:
        verb = "register" if function == "irm_reg_name" else "unregister"
        ipcp = self._find(pid, NameError)
        if ipcp.type == "broadcast":
            raise UnsupportedError(f"layer {ipcp.layer!r} is a broadcast layer and holds no names")
        self._call(
            function, _text(name), pid, refused=NameError, doing=f"{verb} {name!r} in {ipcp.layer or ipcp.name!r}"
        )

    # --- bindings

    def bind_process(self, pid: int, name: str) -> None:
        """Let a process accept flows for a name."""
        doing = f"bind process {pid} to {name!r}"
        self._call("irm_bind_process", pid, _text(name), refused=BindError, doing=doing)

    def _unbind_process(self, pid: int, name: str) -> None:
        doing = f"unbind process {pid} from {name!r}"
        self._call("irm_unbind_process", pid, _text(name), refused=BindError, doing=doing)

    def _bind_program(self, request: messages.BindProgram) -> None:
        # An absolute path: looking for the program on PATH, the library cuts that off after its first entry.
        program = os.fsencode(request.path)
        arguments = [self._ffi.new("char[]", os.fsencode(each)) for each in request.args]
        vector = self._ffi.new("char *[]", [*arguments, self._ffi.NULL])
        doing = f"bind program {request.path!r} to {request.name!r}"
        self._call(
            "irm_bind_program",
            program,
            _text(request.name),
            int(request.auto),
            len(arguments),
            vector,
            refused=BindError,
            doing=doing,
        )

    def _unbind_program(self, program: str, name: str) -> None:
        doing = f"unbind program {program!r} from {name!r}"
        self._call("irm_unbind_program", os.fsencode(program), _text(name), refused=BindError, doing=doing)

    # --- helpers

    def _call(self, function: str, *arguments: Any, refused: type[IrmError], doing: str) -> int:  # noqa: ANN401
        call = getattr(self._library.irm, function)
        result: int = run(lambda: call(*arguments))
        if result >= 0:
            return result
        match self._library.number(result):
            case c.EIRMD:
                raise NodeError(f"cannot {doing}: the daemon of the C Ouroboros does not answer")
            case c.ENAME:
                why = "it does not know the name: create it first"
            case c.EIPCP:
                why = "the IPC process failed"
            case c.EIPCPTYPE:
                why = "it cannot build that type"
            case c.EIPCPSTATE:
                why = "the IPC process is in another state"
            case _:
                why = "its log may say why"
        raise refused(f"the C Ouroboros did not {doing} (error {result}): {why}")

    def _list(self, function: str, kind: str, doing: str, entry: Callable[[Any], Any]) -> list[Any]:
        found = self._ffi.new(kind)
        # Of more than some 400 names the answer does not fit into the buffer of the library.
        number = self._call(function, found, refused=IrmError, doing=doing)
        try:
            return [entry(found[0][index]) for index in range(number)]
        finally:
            if number > 0:
                self._libc.free(self._ffi.cast("void *", found[0]))

    def _string(self, field: Any) -> str:  # noqa: ANN401
        return bytes(self._ffi.string(field)).decode(errors="replace")

    def _qos(self, spec: QoSSpec) -> Any:  # noqa: ANN401
        qos = self._ffi.new("qosspec_t *")
        for field in ("delay", "bandwidth", "availability", "loss", "ber", "max_gap", "timeout"):
            setattr(qos, field, getattr(spec, field))
        qos.in_order = int(spec.ordered)
        return qos

    def _configuration(self, conf: IpcpConfig) -> Any:  # noqa: ANN401
        config = self._ffi.new("struct ipcp_config *")
        config.layer = _text(conf.layer_name)
        config.hash = int(conf.dir_hash_algo)
        config.type = self._type_number(conf.ipcp_type)
        match conf.ipcp_type:
            case IpcpType.UNICAST:
                _set_unicast(config.unicast, conf.unicast or UnicastConfig(), flat=self._library.version < (0, 22))
            case IpcpType.ETH_LLC | IpcpType.ETH_DIX:
                eth = conf.eth or EthConfig()
                config.eth.dev, config.eth.ethertype = eth.dev.encode(), eth.ethertype
            case IpcpType.UDP4:
                udp4 = _without_peers(conf.udp4 or Udp4Config())
                config.udp4.ip_addr, config.udp4.dns_addr = map(_as_in_memory, (udp4.ip_addr, udp4.dns_addr))
                config.udp4.port = udp4.port
            case IpcpType.UDP6:
                udp6 = _without_peers(conf.udp6 or Udp6Config())
                config.udp6.ip_addr = ipaddress.IPv6Address(udp6.ip_addr).packed
                config.udp6.dns_addr = ipaddress.IPv6Address(udp6.dns_addr).packed
                config.udp6.port = udp6.port
        return config


def _set_unicast(c_unicast: Any, unicast: UnicastConfig, *, flat: bool) -> None:  # noqa: ANN401
    try:
        unicast.check_for_prototype()
    except ValueError as error:
        raise UnsupportedError(str(error)) from None
    dt = unicast.dt
    c_unicast.addr_size, c_unicast.eid_size, c_unicast.max_ttl = dt.addr_size, dt.eid_size, dt.max_ttl
    c_unicast.addr_auth, c_unicast.cong_avoid = int(unicast.addr_auth), int(unicast.cong_avoid)
    if flat:
        # In 0.21 only the policy of the link states can be chosen, and the rest is fixed.
        c_unicast.routing = int(dt.routing.ls.pol)
        return
    routing, directory = c_unicast.routing, c_unicast.dir
    routing.pol, routing.ls.pol = int(dt.routing.pol), int(dt.routing.ls.pol)
    for field in ("t_recalc", "t_update", "t_timeo"):
        setattr(routing.ls, field, getattr(dt.routing.ls, field))
    directory.pol = int(unicast.dir.pol)
    for field in ("alpha", "k", "t_expire", "t_refresh", "t_replicate"):
        setattr(directory.dht, field, getattr(unicast.dir.dht, field))


def _without_peers(conf: Any) -> Any:  # noqa: ANN401
    if conf.peers:
        raise UnsupportedError(
            "the C Ouroboros has no table of peers: put the names into its hosts file, or a name server"
        )
    return conf


def _as_in_memory(address: str) -> int:
    """The number that has the bytes of the address in memory."""
    return int.from_bytes(ipaddress.IPv4Address(address).packed, sys.byteorder)


def _path(path: str | None) -> bytes:
    encoded = os.fsencode(path or "")
    if len(encoded) > 511:
        raise NameError(f"the path {path!r} is too long: at most 511 bytes")
    return encoded


def _text(text: str, longest: int = 255) -> bytes:
    encoded = text.encode()
    if not encoded or len(encoded) > longest or b"\0" in encoded:
        raise NameError(f"a name has 1 to {longest} bytes of UTF-8 and no NUL, not {text!r}")
    return encoded


__all__ = ["Management"]
