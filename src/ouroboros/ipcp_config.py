"""Types and settings of IPC processes, and names: what the calls of `ouroboros.irm` are given.

Everything here is also in `ouroboros.irm`, which is where programs import it from. A value is checked when it is given, to
the constructor or to an attribute later; an error names the class and the field.

>>> from ouroboros.irm import *
>>> DhtConfig(k=16).alpha
3
>>> DhtConfig(alpha=11)
Traceback (most recent call last):
    ...
ValueError: DhtConfig: alpha must be from 1 to 10, not 11

Source: `irm.md` 1.2 for the numbers of the enums; defaults and ranges are those of the C prototype.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, ClassVar, TypeVar

import msgspec

from ouroboros.control.messages import NAME_LENGTH
from ouroboros.qos import UINT32_MAX

__all__ = [
    "AddressAuthPolicy",
    "CongestionAvoidPolicy",
    "DhtConfig",
    "DirConfig",
    "DirectoryHashAlgo",
    "DirectoryPolicy",
    "DtConfig",
    "EthConfig",
    "IpcpConfig",
    "IpcpType",
    "LinkStateConfig",
    "LinkStatePolicy",
    "LoadBalancePolicy",
    "NameInfo",
    "NameSecPaths",
    "RoutingConfig",
    "RoutingPolicy",
    "Udp4Config",
    "Udp6Config",
    "UnicastConfig",
]

#: The longest path in a `NameSecPaths`, bytes.
_PATH_LENGTH = 511
#: Bytes of a peer: a name, an address and a port.
_PEER_LENGTH = NAME_LENGTH + 64

_T = TypeVar("_T")


# --- choices


class _Choice(IntEnum):
    @property
    def word(self) -> str:
        """What the `irm` command calls it."""
        return self.name.lower()


class IpcpType(_Choice):
    """Type of an IPC process and of its layer. This version builds `LOCAL` and `BROADCAST`."""

    LOCAL = 0
    UNICAST = 1
    BROADCAST = 2
    ETH_LLC = 3
    ETH_DIX = 4
    UDP4 = 5
    UDP6 = 6

    @property
    def word(self) -> str:
        """What the `irm` command calls it, such as `eth-llc`."""
        return self.name.lower().replace("_", "-")


class AddressAuthPolicy(_Choice):
    """How a unicast layer gives out addresses."""

    FLAT_RANDOM = 0

    @property
    def word(self) -> str:
        """What the `irm` command calls it: `flat`."""
        return "flat"


class LinkStatePolicy(_Choice):
    """What link-state routing does with its routes: the shortest only, a loop-free alternate (LFA) at hand, or several at
    once (ECMP)."""

    SIMPLE = 0
    LFA = 1
    ECMP = 2

    @property
    def word(self) -> str:
        """What the `irm` command calls it: `link_state`, `lfa` or `ecmp`."""
        return "link_state" if self is LinkStatePolicy.SIMPLE else self.name.lower()


class RoutingPolicy(_Choice):
    """How a unicast layer finds its routes."""

    LINK_STATE = 0


class CongestionAvoidPolicy(_Choice):
    """What a unicast layer does when there is more to send than gets through."""

    NONE = 0
    MB_ECN = 1

    @property
    def word(self) -> str:
        """What the `irm` command calls it: `none` or `mb-ecn`."""
        return self.name.lower().replace("_", "-")


class DirectoryPolicy(_Choice):
    """Where a unicast layer keeps the names that are registered in it."""

    DHT = 0

    @property
    def word(self) -> str:
        """What the `irm` command calls it: `DHT`."""
        return self.name


class DirectoryHashAlgo(_Choice):
    """How a layer hashes the names that are registered in it."""

    SHA3_224 = 0
    SHA3_256 = 1
    SHA3_384 = 2
    SHA3_512 = 3

    @property
    def word(self) -> str:
        """What the `irm` command calls it, such as `SHA3_256`."""
        return self.name


class LoadBalancePolicy(_Choice):
    """Which acceptor of a name gets the next flow: the one that waited longest, or the one that came last."""

    ROUND_ROBIN = 0
    SPILL = 1

    @property
    def word(self) -> str:
        """What the `irm` command calls it: `round-robin` or `spillover`."""
        return "round-robin" if self is LoadBalancePolicy.ROUND_ROBIN else "spillover"


# --- checks: each gives back the value to keep, or raises with a text that begins after the name of the field


def _whole(least: int, most: int, unit: str = "", *, base: int = 10) -> Callable[[Any], int]:
    def show(number: int) -> str:
        return f"0x{number:04X}" if base == 16 else str(number)

    def check(value: Any) -> int:  # noqa: ANN401
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"must be a whole number{unit and f' ({unit})'}, not {value!r}")
        if not least <= value <= most:
            raise ValueError(f"must be from {show(least)} to {show(most)}{unit and f' {unit}'}, not {show(value)}")
        return value

    return check


def _text(longest: int) -> Callable[[Any], str]:
    def check(value: Any) -> str:  # noqa: ANN401
        if not isinstance(value, str):
            raise TypeError(f"must be a string, not {value!r}")
        length = len(value.encode(errors="surrogatepass"))
        if length > longest:
            raise ValueError(f"has {length} bytes in UTF-8; at most {longest} fit")
        return value

    return check


def _choice(kind: type[_Choice]) -> Callable[[Any], _Choice]:
    def check(value: Any) -> _Choice:  # noqa: ANN401
        if isinstance(value, kind):
            return value
        # Of another enum it would be a mistake; a plain number is what the C prototype's interface takes.
        if type(value) is not int:
            raise TypeError(f"must be of class {kind.__name__}, not {value!r}")
        try:
            return kind(value)
        except ValueError:
            known = ", ".join(f"{each.name} ({each.value})" for each in kind)
            raise ValueError(f"must be one of {known}, not {value}") from None

    return check


def _address(kind: Callable[[Any], _T], version: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:  # noqa: ANN401
        try:
            # The constructors of ipaddress take numbers, too.
            return str(kind(str(value)))
        except ValueError:
            raise ValueError(f"must be an {version} address, not {value!r}") from None

    return check


def _texts(value: Any) -> tuple[str, ...]:  # noqa: ANN401
    if isinstance(value, str):
        raise TypeError(f"must be a tuple of strings, not {value!r}")
    return tuple(map(_text(_PEER_LENGTH), value))


def _part(kind: type[_T], *, optional: bool = False) -> Callable[[Any], _T | None]:
    def check(value: Any) -> _T | None:  # noqa: ANN401
        if value is None:
            return None if optional else kind()
        if not isinstance(value, kind):
            raise TypeError(f"must be of class {kind.__name__}, not {value!r}")
        return value

    return check


_ipv4 = _address(ipaddress.IPv4Address, "IPv4")
_ipv6 = _address(ipaddress.IPv6Address, "IPv6")
_port = _whole(1, 65535)
_seconds = _whole(1, UINT32_MAX, "s")


class _Checked(msgspec.Struct):
    """Settings with a check for each of their fields."""

    checks: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}

    def __post_init__(self) -> None:
        for field in self.checks:
            setattr(self, field, getattr(self, field))

    def __setattr__(self, field: str, value: Any) -> None:  # noqa: ANN401
        if field not in self.checks:
            if field in self.__struct_fields__:
                super().__setattr__(field, value)
                return
            known = ", ".join(self.__struct_fields__)
            raise AttributeError(f"{type(self).__name__} has no field {field!r} (known: {known})")
        try:
            checked = self.checks[field](value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{type(self).__name__}: {field} {error}") from None
        super().__setattr__(field, checked)


# --- settings


class LinkStateConfig(_Checked):
    """Link-state routing of a unicast layer.

    `pol`: what is done with the routes. Seconds, each at least 1: `t_recalc` between computations of the routes,
    `t_update` between updates of a link, `t_timeo` of silence until a link counts as gone.

    >>> LinkStateConfig(LinkStatePolicy.ECMP, t_recalc=2)
    LinkStateConfig(pol=<LinkStatePolicy.ECMP: 2>, t_recalc=2, t_update=15, t_timeo=60)
    """

    checks = {"pol": _choice(LinkStatePolicy), "t_recalc": _seconds, "t_update": _seconds, "t_timeo": _seconds}

    pol: LinkStatePolicy = LinkStatePolicy.SIMPLE
    t_recalc: int = 4
    t_update: int = 15
    t_timeo: int = 60


class RoutingConfig(_Checked):
    """Routing of a unicast layer. `pol`: how routes are found. `ls`: settings of link-state routing."""

    checks = {"pol": _choice(RoutingPolicy), "ls": _part(LinkStateConfig)}

    pol: RoutingPolicy = RoutingPolicy.LINK_STATE
    ls: LinkStateConfig = msgspec.field(default_factory=LinkStateConfig)


class DtConfig(_Checked):
    """Data transfer in a unicast layer.

    Sizes in the header of a packet, bytes from 1 to 8: `addr_size` of an address, `eid_size` of the id of an endpoint.
    `max_ttl`: hops from 1 to 255 after which a packet is dropped. `routing`: how it finds its way.

    >>> DtConfig(max_ttl=30).routing.ls.t_timeo
    60
    """

    checks = {
        "addr_size": _whole(1, 8, "bytes"),
        "eid_size": _whole(1, 8, "bytes"),
        "max_ttl": _whole(1, 255, "hops"),
        "routing": _part(RoutingConfig),
    }

    addr_size: int = 4
    eid_size: int = 8
    max_ttl: int = 60
    routing: RoutingConfig = msgspec.field(default_factory=RoutingConfig)


class DhtConfig(_Checked):
    """The distributed hash table in which a unicast layer keeps its names.

    `alpha`: questions asked at a time, 1 to 10. `k`: members that keep a name, 1 to 20. Seconds: `t_expire` until a name
    is forgotten, 10 to 86400; `t_refresh` between refreshments and `t_replicate` between copies to others, 3 to 3600.
    """

    checks = {
        "alpha": _whole(1, 10),
        "k": _whole(1, 20),
        "t_expire": _whole(10, 86400, "s"),
        "t_refresh": _whole(3, 3600, "s"),
        "t_replicate": _whole(3, 3600, "s"),
    }

    alpha: int = 3
    k: int = 8
    t_expire: int = 86400
    t_refresh: int = 900
    t_replicate: int = 900


class DirConfig(_Checked):
    """The directory of a unicast layer. `pol`: where it is kept. `dht`: settings of the hash table."""

    checks = {"pol": _choice(DirectoryPolicy), "dht": _part(DhtConfig)}

    pol: DirectoryPolicy = DirectoryPolicy.DHT
    dht: DhtConfig = msgspec.field(default_factory=DhtConfig)


class UnicastConfig(_Checked):
    """A unicast layer: data transfer, directory, how addresses are given out, what is done against congestion."""

    checks = {
        "dt": _part(DtConfig),
        "dir": _part(DirConfig),
        "addr_auth": _choice(AddressAuthPolicy),
        "cong_avoid": _choice(CongestionAvoidPolicy),
    }

    dt: DtConfig = msgspec.field(default_factory=DtConfig)
    dir: DirConfig = msgspec.field(default_factory=DirConfig)
    addr_auth: AddressAuthPolicy = AddressAuthPolicy.FLAT_RANDOM
    cong_avoid: CongestionAvoidPolicy = CongestionAvoidPolicy.MB_ECN


class EthConfig(_Checked):
    """A layer on an Ethernet segment. `dev`: the network device. `ethertype`: 0x0600 to 0xFFFE; it matters for `ETH_DIX`."""

    checks = {"dev": _text(NAME_LENGTH), "ethertype": _whole(0x0600, 0xFFFE, base=16)}

    dev: str = ""
    ethertype: int = 0xA000


class Udp4Config(_Checked):
    """A layer over UDP and IPv4. `ip_addr`: our address. `port`: 1 to 65535, the same on all nodes of the layer.

    `peers`: where names are, as `NAME@ADDRESS`; what is not there is looked up (`docs/udp.md`). `dns_addr`: 0.0.0.0; others
    are refused, because names are not registered with name servers. Addresses are strings, or objects of `ipaddress`.

    >>> Udp4Config("192.0.2.300")
    Traceback (most recent call last):
        ...
    ValueError: Udp4Config: ip_addr must be an IPv4 address, not '192.0.2.300'
    """

    checks = {"ip_addr": _ipv4, "dns_addr": _ipv4, "port": _port, "peers": _texts}

    ip_addr: str = "0.0.0.0"
    dns_addr: str = "0.0.0.0"
    port: int = 3435
    peers: tuple[str, ...] = ()


class Udp6Config(_Checked):
    """A layer over UDP and IPv6. `ip_addr`: our address. `port`: 1 to 65535, the same on all nodes of the layer.

    `peers`: where names are, as `NAME@ADDRESS`; what is not there is looked up (`docs/udp.md`). `dns_addr`: ::; others
    are refused, because names are not registered with name servers. Addresses are strings, or objects of `ipaddress`.
    """

    checks = {"ip_addr": _ipv6, "dns_addr": _ipv6, "port": _port, "peers": _texts}

    ip_addr: str = "::"
    dns_addr: str = "::"
    port: int = 3435
    peers: tuple[str, ...] = ()


#: The settings that a type has beside the layer's name and hash: a field of `IpcpConfig`.
_SETTINGS_OF = {
    IpcpType.UNICAST: "unicast",
    IpcpType.ETH_LLC: "eth",
    IpcpType.ETH_DIX: "eth",
    IpcpType.UDP4: "udp4",
    IpcpType.UDP6: "udp6",
}


#: Bytes of an impairment: more than all its words take.
_IMPAIR_LENGTH = 255


class IpcpConfig(_Checked):
    """What `bootstrap_ipcp` makes of an IPC process: a member of the layer `layer_name`.

    Of `unicast`, `eth` (for both Ethernet types), `udp4` and `udp6` only the one that belongs to `ipcp_type` can be given;
    None stands for its defaults. The UDP types hash names in their own way, whatever `dir_hash_algo` says.
    `impair`: what a layer of type local, udp4 or udp6 does to packets, as in `"loss=1%,delay=10ms"` (`docs/testing.md`);
    None: nothing.

    Raises `TypeError` or `ValueError` naming the field when a value does not fit.

    >>> conf = IpcpConfig(IpcpType.UDP4, "field", udp4=Udp4Config("192.0.2.1"))
    >>> conf.dir_hash_algo
    <DirectoryHashAlgo.SHA3_256: 1>
    """

    checks = {
        "ipcp_type": _choice(IpcpType),
        "layer_name": _text(NAME_LENGTH),
        "dir_hash_algo": _choice(DirectoryHashAlgo),
        "unicast": _part(UnicastConfig, optional=True),
        "eth": _part(EthConfig, optional=True),
        "udp4": _part(Udp4Config, optional=True),
        "udp6": _part(Udp6Config, optional=True),
        "impair": lambda value: None if value is None else _text(_IMPAIR_LENGTH)(value),
    }

    ipcp_type: IpcpType
    layer_name: str = ""
    dir_hash_algo: DirectoryHashAlgo = DirectoryHashAlgo.SHA3_256
    unicast: UnicastConfig | None = None
    eth: EthConfig | None = None
    udp4: Udp4Config | None = None
    udp6: Udp6Config | None = None
    impair: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in sorted(set(_SETTINGS_OF.values())):
            if getattr(self, field) is not None and field != _SETTINGS_OF.get(self.ipcp_type):
                raise ValueError(f"IpcpConfig: {field} means nothing for type {self.ipcp_type.word}: leave it out")


# --- names


class NameSecPaths(_Checked):
    """Files with which a name proves what it is: `enc` encryption settings, `key` private key, `crt` certificate.

    Paths of at most 511 bytes; empty stands for the place in the security directory (`docs/security.md`).
    """

    checks = {"enc": _text(_PATH_LENGTH), "key": _text(_PATH_LENGTH), "crt": _text(_PATH_LENGTH)}

    enc: str = ""
    key: str = ""
    crt: str = ""


class NameInfo(_Checked):
    """A name. `create_name` uses the first four fields; `list_names` fills the others too.

    `pol_lb`: which acceptor gets the next flow. `server_sec`, `client_sec`: files for those who accept and who allocate.
    `programs`: base names of bound programs. `processes`: ids of bound processes. `layers`: where it is registered.

    >>> NameInfo("clock", LoadBalancePolicy.SPILL).pol_lb.word
    'spillover'
    """

    # What is wrong with a name is for the node to say: it checks those of other requests as well.
    checks = {
        "pol_lb": _choice(LoadBalancePolicy),
        "server_sec": _part(NameSecPaths),
        "client_sec": _part(NameSecPaths),
    }

    name: str
    pol_lb: LoadBalancePolicy = LoadBalancePolicy.ROUND_ROBIN
    server_sec: NameSecPaths = msgspec.field(default_factory=NameSecPaths)
    client_sec: NameSecPaths = msgspec.field(default_factory=NameSecPaths)
    programs: tuple[str, ...] = ()
    processes: tuple[int, ...] = ()
    layers: tuple[str, ...] = ()
