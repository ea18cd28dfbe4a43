"""Management of a node by names: the calls of `ouroboros.irm` as the `irm` command makes them, for scripts.

::

    from ouroboros.cli import *

    autoboot("lab0", IpcpType.LOCAL, "lab")
    bind_program("clockd", "clock", BIND_AUTO)
    reg_name("clock", layer="lab")

An IPC process is given by its name, a place for a name by IPC process or layer, and `autobind` makes a new member of a layer
known under its own name and that of the layer. Each call is named after an `irm` sub-command.

A call that acts on what it finds, and finds nothing, raises `NoMatchError`. The lists give an empty list. All else is raised
as in `ouroboros.irm`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import List, Optional  # noqa: UP035

import msgspec

from ouroboros import backend, irm
from ouroboros._arguments import as_text, as_texts, shown
from ouroboros._checks import as_choice
from ouroboros.irm import (
    BIND_AUTO,
    DT_COMP,
    MGMT_COMP,
    BindError,
    DtConfig,
    EthConfig,
    IpcpConfig,
    IpcpCreateError,
    IpcpEnrollError,
    IpcpInfo,
    IpcpType,
    IrmError,
    LayerOffer,
    LinkStateConfig,
    LinkStatePolicy,
    LoadBalancePolicy,
    NameInfo,
    QoSSpec,
    RoutingConfig,
    Udp4Config,
    Udp6Config,
    UnicastConfig,
    bind_process,
    bind_program,
    create_ipcp,
    destroy_name,
    unbind_process,
    unbind_program,
)

# A few helpers are among them, which a star import of the package 0.23 brings and programs may use.
__all__ = [
    "AUTOBIND_TYPES",
    "BIND_AUTO",
    "DT_COMP",
    "MGMT_COMP",
    "BindError",
    "DtConfig",
    "EthConfig",
    "IpcpConfig",
    "IpcpInfo",
    "IpcpType",
    "IrmError",
    "LinkStateConfig",
    "LinkStatePolicy",
    "List",
    "LoadBalancePolicy",
    "NameInfo",
    "NoMatchError",
    "Optional",
    "QoSSpec",
    "RoutingConfig",
    "Udp4Config",
    "Udp6Config",
    "UnicastConfig",
    "autoboot",
    "bind_ipcp",
    "bind_process",
    "bind_program",
    "bootstrap_ipcp",
    "change_peers",
    "connect_ipcp",
    "create_ipcp",
    "create_name",
    "destroy_ipcp",
    "destroy_name",
    "disconnect_ipcp",
    "enroll_any",
    "enroll_ipcp",
    "find_ipcp",
    "impair_ipcp",
    "keep_alive_ipcp",
    "list_ipcps",
    "list_names",
    "reg_name",
    "save_configuration",
    "shutil",
    "unbind_ipcp",
    "unbind_process",
    "unbind_program",
    "unreg_name",
]

#: Types whose IPC processes others enroll with, so that `autobind` means something for them.
AUTOBIND_TYPES = (IpcpType.UNICAST, IpcpType.BROADCAST)

_COMPONENTS = {"mgmt": MGMT_COMP, "dt": DT_COMP}


class NoMatchError(IrmError, ValueError):
    """There is nothing of the name, or in the layer, that a call was told to act on; the text says what it looked for."""


# --- IPC processes


def find_ipcp(name: str) -> IpcpInfo:
    """The IPC process of that name. Raises `NoMatchError` when there is none.

    Example::

        layer = find_ipcp("lab0").layer
    """
    as_text(name, "the name of an IPC process")
    for ipcp in irm.list_ipcps():
        if ipcp.name == name:
            return ipcp
    raise NoMatchError(f"there is no IPC process {name!r}: see 'irm ipcp list'")


def list_ipcps(name: str | None = None, layer: str | None = None, ipcp_type: IpcpType | None = None) -> list[IpcpInfo]:
    """The IPC processes of that name, in that layer and of that type, sorted by type, then pid; None means any.

    Example::

        members = list_ipcps(layer="chat", ipcp_type=IpcpType.BROADCAST)
    """
    if name is not None:
        name = as_text(name, "the name of an IPC process")
    if layer is not None:
        layer = as_text(layer, "layer")
    if ipcp_type is not None:
        ipcp_type = as_choice(IpcpType, ipcp_type, "ipcp_type")
    return [
        ipcp
        for ipcp in irm.list_ipcps()
        if name in (None, ipcp.name) and layer in (None, ipcp.layer) and ipcp_type in (None, ipcp.type)
    ]


def destroy_ipcp(name: str) -> None:
    """Destroy an IPC process; flows in its layer go down. Raises `NoMatchError` when there is none of that name.

    Example::

        destroy_ipcp("lab0")
    """
    irm.destroy_ipcp(find_ipcp(name).pid)


def bootstrap_ipcp(name: str, conf: IpcpConfig, autobind: bool = False) -> None:
    """Make an IPC process the first member of a new layer.

    With `autobind` it accepts flows for its own name and that of the layer, so that others can enroll with it. A member of a
    unicast layer has both names registered in each layer of this node that holds names. For types with which nobody enrolls
    (all but `AUTOBIND_TYPES`) it changes nothing.

    Raises `NoMatchError` when there is no IPC process of that name, and what `ouroboros.irm.bootstrap_ipcp` raises.

    Example::

        bootstrap_ipcp("lab0", IpcpConfig(IpcpType.BROADCAST, "chat"), autobind=True)
    """
    irm._check_settings(conf)
    pid = find_ipcp(name).pid
    irm.bootstrap_ipcp(pid, conf)
    if autobind and conf.ipcp_type in AUTOBIND_TYPES:
        _be_known(pid, name, conf.layer_name)


def impair_ipcp(name: str, impair: str) -> None:
    """Change what an impaired layer does to packets, while it runs.

    Raises `NoMatchError` when there is no IPC process of that name, and what `ouroboros.irm.impair_ipcp` raises.

    Example::

        impair_ipcp("lab0", "loss=5%,delay=20ms")
    """
    irm.impair_ipcp(find_ipcp(name).pid, impair)


def keep_alive_ipcp(name: str, seconds: float) -> None:
    """Change how often a member of a unicast layer lets its neighbours hear of it.

    Raises `NoMatchError` when there is no IPC process of that name, and what `ouroboros.irm.keep_alive_ipcp` raises.

    Example::

        keep_alive_ipcp("b", 0.1)
    """
    irm.keep_alive_ipcp(find_ipcp(name).pid, seconds)


def change_peers(name: str, add: Sequence[str] = (), remove: Sequence[str] = ()) -> None:
    """Change where a layer over UDP looks for names, while it runs.

    Raises `NoMatchError` when there is no IPC process of that name, and what `ouroboros.irm.change_peers` raises.

    Example::

        change_peers("u0", add=["clock@192.0.2.7"])
    """
    irm.change_peers(find_ipcp(name).pid, add, remove)


def autoboot(
    name: str, ipcp_type: IpcpType, layer: str, conf: IpcpConfig | None = None, *, autobind: bool = True
) -> None:
    """Create an IPC process and make it the first member of a layer, as `bootstrap_ipcp` does.

    One that exists is used if it is of that type and in no layer yet. `conf`: further settings, None for the defaults; its
    layer is replaced by `layer`. An IPC process that was created here is destroyed again when the rest fails.

    Raises `ValueError` when `conf` is for another type, and what `ouroboros.irm` raises for each of the steps.

    Example::

        autoboot("lab0", IpcpType.LOCAL, "lab")
    """
    ipcp_type = as_choice(IpcpType, ipcp_type, "ipcp_type")
    conf = IpcpConfig(ipcp_type) if conf is None else conf
    irm._check_settings(conf)
    if conf.ipcp_type is not ipcp_type:
        raise ValueError(f"autoboot: conf is for type {conf.ipcp_type.word}, ipcp_type is {ipcp_type.word}")
    with _present(name, ipcp_type):
        bootstrap_ipcp(name, msgspec.structs.replace(conf, layer_name=layer), autobind)


def enroll_ipcp(
    name: str,
    dst: str,
    autobind: bool = False,
    *,
    ipcp_type: IpcpType | None = None,
    layer: str | None = None,
    connect: bool = True,
    timeout: float | None = None,
    over: Iterable[str] = (),
) -> None:
    """Make an IPC process a member of a layer that exists, and connect it to the member that it enrolled with.

    `dst`: name of a member, or of the layer. `autobind`: as for `bootstrap_ipcp`. `ipcp_type`: create an IPC process of
    that type when there is none of that name. `layer`: what the layer should turn out to be called. `connect`: False to stay
    without a neighbour, for `connect_ipcp`. `timeout`: seconds until the enrollment fails, None for 6. `over`: layers below,
    by one of which it enrolls, and each of which carries a connection; none: whichever leads there.

    Raises `NoMatchError` when there is no IPC process of that name and no `ipcp_type`, `IpcpEnrollError` when the layer is
    another, and what `ouroboros.irm.enroll_ipcp` raises.

    Example::

        enroll_ipcp("campus.b", "campus", autobind=True)
    """
    with _present(name, ipcp_type):
        ipcp, layers = find_ipcp(name), tuple(over)
        connect = connect and backend.native() is None
        irm._enroll(ipcp.pid, dst, connect=connect, timeout=timeout, over=layers)
        ipcp = find_ipcp(name)
        learnt = ipcp.layer
        if layer not in (None, learnt):
            raise IpcpEnrollError(
                f"{dst!r} is a member of layer {learnt!r}, not of {layer!r}: IPC process {name!r} is now"
            )
        if autobind:
            _be_known(ipcp.pid, name, learnt)
    if connect:
        # One that has enrolled stays a member if this fails.
        connect_ipcp(name, dst, over=layers)


def enroll_any(
    name: str,
    autobind: bool = False,
    *,
    ipcp_type: IpcpType | None = None,
    layer: str | None = None,
    connect: bool = True,
    timeout: float | None = None,
    over: Iterable[str] = (),
) -> LayerOffer:
    """Make an IPC process a member of the layer that other nodes offer, of which nothing need be known, by whoever answers;
    returns what that is.

    Nodes of ours on the Ethernet segments of this node are asked (`ouroboros.irm.discover_layers`). `ipcp_type`, `layer`:
    only layers of that type, or of that name; an IPC process that there is takes those of its type. Otherwise as
    `enroll_ipcp`, but that `over` are layers to ask in. One that is made is of the type of the layer.

    Raises `IpcpEnrollError` when nobody offers such a layer; when several do, with a text that has all of them; when
    none of the members takes it in; and what `enroll_ipcp` and `discover_layers` raise.

    Example::

        print(enroll_any("b", autobind=True).layer)
    """
    known = next(iter(list_ipcps(name=name)), None)
    wanted = ipcp_type if known is None else known.type
    offers = [
        offer
        for offer in irm.discover_layers(over=over)
        if wanted in (None, offer.type) and layer in (None, offer.layer)
    ]
    if not offers:
        kind = "" if wanted is None else f" {wanted.word}"
        raise IpcpEnrollError(
            f"no node offers a{kind} layer{'' if layer is None else f' {layer!r}'} to newcomers: one with a member that has "
            "`autobind`, on the same Ethernet segment, does"
        )
    if len({(offer.type, offer.layer) for offer in offers}) > 1:
        raise IpcpEnrollError(
            f"several layers answer: {'; '.join(map(str, offers))}. Say which by its name, or its type"
        )
    return _enroll_with_one(name, offers, autobind, connect, timeout)


def _enroll_with_one(
    name: str, offers: Sequence[LayerOffer], autobind: bool, connect: bool, timeout: float | None
) -> LayerOffer:
    """Of these members, the first that takes it in."""
    # Several have one name, where it is that of the layer: whoever is there answers.
    ways = {(offer.member, offer.over): offer for offer in offers}
    failures: list[str] = []
    for (member, over), offer in ways.items():
        try:
            enroll_ipcp(
                name,
                member,
                autobind,
                ipcp_type=offer.type,
                layer=offer.layer,
                connect=connect,
                timeout=timeout,
                over=(over,),
            )
        except IpcpEnrollError as error:
            failures.append(str(error))
        else:
            return offer
    raise IpcpEnrollError("; ".join(failures))


def connect_ipcp(name: str, dst: str, comp: str = "*", qos: QoSSpec | None = None, *, over: Iterable[str] = ()) -> None:
    """Connect an IPC process to a neighbour in its layer, for good: a connection that is lost is made again.

    `dst`: name of the neighbour. `comp`: what is connected, "mgmt" (management), "dt" (data transfer) or "*" for what the
    type has: both for unicast, "dt" for broadcast. `qos`: of the data transfer flow, None for raw. `over`: layers below,
    each of which carries a connection; none: whichever leads there.

    Raises `ValueError` for another component, `NoMatchError` when there is no IPC process of that name, and what
    `ouroboros.irm.connect_ipcp` raises.

    Example::

        connect_ipcp("campus.a", "campus.b", qos=QOS_DATA)
    """
    ipcp = find_ipcp(name)
    for layer in tuple(over) or (None,):
        for word in _components(comp, ipcp.type):
            irm.connect_ipcp(ipcp.pid, _COMPONENTS[word], dst, qos if word == "dt" else None, over=layer)


def disconnect_ipcp(name: str, dst: str, comp: str = "*") -> None:
    """Undo `connect_ipcp`; raises as it does.

    Example::

        disconnect_ipcp("campus.a", "campus.b")
    """
    ipcp = find_ipcp(name)
    # The reverse of connecting: routes go by way of the management flows.
    for word in reversed(_components(comp, ipcp.type)):
        irm.disconnect_ipcp(ipcp.pid, _COMPONENTS[word], dst)


# --- the node


def save_configuration(path: str | os.PathLike[str] | None = None) -> str:
    """What the node has, as the text of a configuration file; with `path`, it is written there, all of it or nothing.

    Raises `OSError` when the file cannot be written, and what `ouroboros.irm.save_configuration` raises.

    Example::

        save_configuration("/etc/ouroboros/node.toml")
    """
    text = irm.save_configuration()
    if path is not None:
        new = f"{os.fspath(path)}.new"
        try:
            with open(new, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new)
            raise
    return text


# --- names


def create_name(name: str, pol_lb: LoadBalancePolicy | int | None = None, info: NameInfo | None = None) -> None:
    """Create a name. One that exists stays as it is.

    `pol_lb`: which acceptor gets the next flow, round-robin for None. `info`: given in place of the other two.

    Raises `NameError` when the node refuses.

    Example::

        create_name("clock", LoadBalancePolicy.SPILL)
    """
    if info is None:
        policy = LoadBalancePolicy.ROUND_ROBIN if pol_lb is None else as_choice(LoadBalancePolicy, pol_lb, "pol_lb")
        info = NameInfo(name, policy)
    irm.create_name(info)


def list_names(name: str | None = None) -> list[NameInfo]:
    """All names, sorted, or only the one that is given.

    Example::

        servers = [pid for info in list_names("clock") for pid in info.processes]
    """
    if name is not None:
        name = as_text(name, "the name")
    return [info for info in irm.list_names() if name in (None, info.name)]


def reg_name(
    name: str,
    ipcp: str | None = None,
    ipcps: Iterable[str] | None = None,
    layer: str | None = None,
    layers: Iterable[str] | None = None,
    *,
    pol_lb: LoadBalancePolicy = LoadBalancePolicy.ROUND_ROBIN,
) -> None:
    """Publish a name in layers, creating it if needed with the policy `pol_lb`.

    Where: by IPC processes (`ipcp`, `ipcps`), by layers (`layer`, `layers`), or both; "*" stands for every one that can hold
    names.

    Raises `ValueError` when no place is given, `NoMatchError` when one of them does not exist (then nothing is done), and
    what `ouroboros.irm.create_name` and `ouroboros.irm.reg_name` raise.

    Example::

        reg_name("clock", layers=["lab", "campus"])
    """
    pids = _places("reg_name", _all_of("ipcp", ipcp, ipcps), _all_of("layer", layer, layers))
    create_name(name, pol_lb)
    for pid in pids:
        irm.reg_name(name, pid)


def unreg_name(
    name: str,
    ipcp: str | None = None,
    ipcps: Iterable[str] | None = None,
    layer: str | None = None,
    layers: Iterable[str] | None = None,
) -> None:
    """Take a name out of layers, which are given as for `reg_name`; raises as it does.

    Example::

        unreg_name("clock", ipcp="lab0")
    """
    for pid in _places("unreg_name", _all_of("ipcp", ipcp, ipcps), _all_of("layer", layer, layers)):
        irm.unreg_name(name, pid)


# --- bindings


def bind_ipcp(ipcp: str, name: str) -> None:
    """Let an IPC process accept flows for a name, creating the name if needed.

    Raises `NoMatchError` when there is no IPC process of that name, `BindError` when the node refuses.

    Example::

        bind_ipcp("campus.a", "campus")
    """
    irm.bind_process(find_ipcp(ipcp).pid, name)


def unbind_ipcp(ipcp: str, name: str) -> None:
    """Undo `bind_ipcp`.

    Raises `NoMatchError` when there is no IPC process of that name, `BindError` when it is not bound to `name`.

    Example::

        unbind_ipcp("campus.a", "campus")
    """
    irm.unbind_process(find_ipcp(ipcp).pid, name)


# --- helpers


@contextmanager
def _present(name: str, ipcp_type: IpcpType | None) -> Iterator[None]:
    """Create the IPC process if there is none of that name and a type is given; destroy it again if the block fails."""
    known = list_ipcps(name=name)
    if ipcp_type is not None and known and known[0].type is not ipcp_type:
        raise IpcpCreateError(
            f"IPC process {name!r} is of type {known[0].type.word}, not {ipcp_type.word}: choose another name,"
            " or destroy it first"
        )
    if ipcp_type is None or known:
        yield
        return
    pid = create_ipcp(name, ipcp_type)
    try:
        yield
    except BaseException:
        # The first error says more than the failure to tidy up.
        with suppress(IrmError):
            irm.destroy_ipcp(pid)
        raise


def _be_known(pid: int, name: str, layer: str) -> None:
    """Bind a member to its own name and that of its layer, by which it is found in other layers."""
    ipcps = {ipcp.pid: ipcp for ipcp in irm.list_ipcps()}
    lower = [each.pid for each in ipcps.values() if each.layer not in ("", layer) and each.state == "operational"]
    for each in dict.fromkeys((name, layer)):
        irm.bind_process(pid, each)
        if backend.native() is None:
            for below in lower:
                if ipcps[below].type is not IpcpType.BROADCAST:
                    irm.reg_name(each, below)


def _components(comp: str, ipcp_type: IpcpType) -> Sequence[str]:
    if comp in _COMPONENTS:
        return [comp]
    if comp != "*":
        raise ValueError(f"comp must be 'mgmt', 'dt' or '*', not {comp!r}")
    return ["dt"] if ipcp_type is IpcpType.BROADCAST else ["mgmt", "dt"]


def _all_of(what: str, one: str | None, many: Iterable[str] | None) -> list[str]:
    singles = [] if one is None else [as_text(one, what)]
    return singles + as_texts(many, f"{what}s", f"{what}={shown(many)}")


def _places(call: str, ipcps: list[str], layers: list[str]) -> list[int]:
    """Pids of the IPC processes that are meant, each once; every word must mean at least one."""
    if not ipcps and not layers:
        raise ValueError(f"{call}: say where: ipcp, ipcps, layer or layers")
    members = [ipcp for ipcp in irm.list_ipcps() if ipcp.layer]
    pids: dict[int, None] = {}
    for word, what in [*((word, "ipcp") for word in ipcps), *((word, "layer") for word in layers)]:
        found = [member.pid for member in members if _means(word, what, member)]
        if not found:
            raise NoMatchError(_nowhere(word, what))
        pids.update(dict.fromkeys(found))
    return list(pids)


def _means(word: str, what: str, member: IpcpInfo) -> bool:
    if word == "*":
        # A caller that names a broadcast layer is told that it cannot hold names; "all" never means one.
        return member.type is not IpcpType.BROADCAST
    return word == (member.name if what == "ipcp" else member.layer)


def _nowhere(word: str, what: str) -> str:
    if word == "*":
        return "there is no layer that can hold names: make one with 'irm ipcp bootstrap'"
    kind = "IPC process in a layer" if what == "ipcp" else "layer"
    return f"there is no {kind} called {word!r}: see 'irm ipcp list'"
