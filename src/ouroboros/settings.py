"""Settings of IPC processes at bootstrap, described once for each type.

From these classes come `ouroboros.ipcp_config`, the documented part; what `BootstrapIpcp` carries over the control socket
and `Ipcp.bootstrap` gets; the keys of the configuration file; the keys and the help of `irm ipcp bootstrap`. A new setting
is a field here, with its check, and its use in the type.

Source: `irm.md` 1.2 for the numbers of the enums; defaults and ranges are those of the C prototype.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from typing import get_args

import msgspec

from ouroboros._arguments import NAME_LENGTH
from ouroboros._checks import (
    UNLIMITED,
    Check,
    Checked,
    Setting,
    WordEnum,
    address,
    admission,
    choice,
    fields,
    names,
    part,
    peers,
    text,
    whole,
)
from ouroboros._hosts import EXAMPLES, PORT, UNSPECIFIED, read_host, read_peer
from ouroboros.errors import IpcpBootstrapError, UnsupportedError
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


# --- choices


class IpcpType(WordEnum):
    """Type of an IPC process and of its layer. One that this version does not build raises
    `UnsupportedError`."""

    LOCAL = 0
    UNICAST = 1
    BROADCAST = 2
    ETH_LLC = 3
    ETH_DIX = 4
    UDP4 = 5
    UDP6 = 6

    @property
    def word(self) -> str:
        """The word of the `irm` command for it, such as `eth-llc`."""
        return self.name.lower().replace("_", "-")


class AddressAuthPolicy(WordEnum):
    """How a unicast layer gives out addresses."""

    FLAT_RANDOM = 0

    @property
    def word(self) -> str:
        """The word of the `irm` command for it: `flat`."""
        return "flat"


class LinkStatePolicy(WordEnum):
    """The use that link-state routing makes of its routes: the shortest only, a loop-free alternate (LFA) at hand, or
    several at once (ECMP)."""

    SIMPLE = 0
    LFA = 1
    ECMP = 2

    @property
    def word(self) -> str:
        """The word of the `irm` command for it: `link_state`, `lfa` or `ecmp`."""
        return "link_state" if self is LinkStatePolicy.SIMPLE else self.name.lower()


class RoutingPolicy(WordEnum):
    """How a unicast layer finds its routes."""

    LINK_STATE = 0


class CongestionAvoidPolicy(WordEnum):
    """The policy of a unicast layer when there is more to send than gets through."""

    NONE = 0
    MB_ECN = 1

    @property
    def word(self) -> str:
        """The word of the `irm` command for it: `none` or `mb-ecn`."""
        return self.name.lower().replace("_", "-")


class DirectoryPolicy(WordEnum):
    """Where a unicast layer keeps the names that are registered in it."""

    DHT = 0

    @property
    def word(self) -> str:
        """The word of the `irm` command for it: `DHT`."""
        return self.name


class DirectoryHashAlgo(WordEnum):
    """How a layer hashes the names that are registered in it."""

    SHA3_224 = 0
    SHA3_256 = 1
    SHA3_384 = 2
    SHA3_512 = 3

    @property
    def word(self) -> str:
        """The word of the `irm` command for it, such as `SHA3_256`."""
        return self.name


class LoadBalancePolicy(WordEnum):
    """Which acceptor of a name gets the next flow: the one that waited longest, or the one that came last."""

    ROUND_ROBIN = 0
    SPILL = 1

    @property
    def word(self) -> str:
        """The word of the `irm` command for it: `round-robin` or `spillover`."""
        return "round-robin" if self is LoadBalancePolicy.ROUND_ROBIN else "spillover"


# --- what other nodes may have of a node


class Strangers(Checked):
    """The means of a node for others, which ask it for flows; docs/security.md has the reasons.

    `flows`: with peers that asked for them; of the limit of the node, at most half. `flows_of_one`: with one host, at most
    half of those. `memory`: bytes of FRCP in the engine for
    those, beside what each has in any case. `unproven`, `unproven_of_one`: requests
    and flows, of all hosts and of one, of nodes that cannot prove their address and have not sent a packet yet. `grace`:
    seconds that those have for it. `timeout`: the longest of a flow that a peer asked for, milliseconds. `answer`: how many
    times as long as its request an answer to such a node may be.
    """

    checks = fields(
        flows=Setting(whole(1, UNLIMITED), "flows", "flows that peers asked for"),
        flows_of_one=Setting(whole(1, UNLIMITED), "flows_of_one", "of one host of those"),
        memory=Setting(whole(0, UNLIMITED, "bytes"), "memory", "memory of those flows"),
        unproven=Setting(whole(0, UNLIMITED), "unproven", "of nodes that have proven nothing"),
        unproven_of_one=Setting(whole(0, UNLIMITED), "unproven_of_one", "of one host of those"),
        grace=Setting(whole(1, 3600, "s"), "grace", "time for the first packet of those"),
        timeout=Setting(whole(1000, UINT32_MAX, "ms"), "timeout", "longest timeout of a flow"),
        answer=Setting(whole(1, 100), "answer", "how much longer than its request an answer is"),
    )

    flows: int = 4096
    flows_of_one: int = 1024
    memory: int = 512 << 20
    unproven: int = 256
    unproven_of_one: int = 32
    grace: int = 60
    timeout: int = 600_000
    answer: int = 3


class Users(Checked):
    """What programs of users other than its owner may have a node do. `join`: broadcast layers in which it enrolls when they
    join them."""

    checks = fields(join=Setting(names("layers"), "join", "layers that it enrolls in for them"))

    join: tuple[str, ...] = ()


# --- settings

_SECONDS = whole(1, UNLIMITED, "s")

#: Crosses any link that carries IPv6 (RFC 8200, section 5).
MTU = 1280

#: Who may enroll, in a word.
ANYONE, CERTIFIED, NOBODY = "anyone", "certified", "nobody"


class LinkStateConfig(Checked):
    """Link-state routing of a unicast layer.

    `pol`: what is done with the routes. Seconds, each at least 1: `t_recalc` between computations of the routes,
    `t_update` between updates of a link, `t_timeo` of silence until a link counts as gone.

    >>> LinkStateConfig(LinkStatePolicy.ECMP, t_recalc=2)
    LinkStateConfig(pol=<LinkStatePolicy.ECMP: 2>, t_recalc=2, t_update=15, t_timeo=60)
    """

    checks = fields(
        pol=Setting(choice(LinkStatePolicy), "routing", "what is done with routes"),
        t_timeo=Setting(_SECONDS, "ls_t_timeo", "silence until a link is gone"),
        t_update=Setting(_SECONDS, "ls_t_update", "time between updates of a link"),
        t_recalc=Setting(_SECONDS, "ls_t_recalc", "time between computations of routes"),
    )

    pol: LinkStatePolicy = LinkStatePolicy.SIMPLE
    t_recalc: int = 4
    t_update: int = 15
    t_timeo: int = 60


class RoutingConfig(Checked):
    """Routing of a unicast layer. `pol`: how routes are found. `ls`: settings of link-state routing."""

    checks = fields(pol=choice(RoutingPolicy), ls=part(LinkStateConfig))

    pol: RoutingPolicy = RoutingPolicy.LINK_STATE
    ls: LinkStateConfig = msgspec.field(default_factory=LinkStateConfig)


class DtConfig(Checked):
    """Data transfer in a unicast layer.

    Sizes in the header of a packet, bytes from 1 to 8: `addr_size` of an address, `eid_size` of the id of an endpoint.
    `max_ttl`: hops from 1 to 255 after which a packet is dropped. `routing`: how it finds its way. `mtu`: bytes, from 128 to
    65535, of the longest packet that crosses a link whole of which no member has said it, since both its ends are members of
    the prototype (`docs/unicast.md`).

    >>> DtConfig(max_ttl=30).routing.ls.t_timeo
    60
    """

    checks = fields(
        addr_size=Setting(whole(1, 8, "bytes"), "addr", "size of an address", file="addr_size"),
        eid_size=Setting(whole(1, 8, "bytes"), "eid", "size of an endpoint id", file="eid_size"),
        max_ttl=Setting(whole(1, 255, "hops"), "ttl", "way after which a packet is dropped", file="max_ttl"),
        routing=part(RoutingConfig),
        mtu=Setting(whole(128, 65535, "bytes"), "mtu", "what crosses a link of which nobody says it"),
    )

    addr_size: int = 4
    eid_size: int = 8
    max_ttl: int = 60
    routing: RoutingConfig = msgspec.field(default_factory=RoutingConfig)
    mtu: int = MTU


class DhtConfig(Checked):
    """The distributed hash table in which a unicast layer keeps its names.

    `alpha`: questions asked at a time, 1 to 10. `k`: members that keep a name, 1 to 20. Seconds: `t_expire` until a name
    is forgotten, 10 to 86400; `t_refresh` between refreshments and `t_replicate` between copies to others, 3 to 3600.
    """

    checks = fields(
        alpha=Setting(whole(1, 10), "dht_alpha", "questions at a time"),
        k=Setting(whole(1, 20), "dht_k", "members that keep a name"),
        t_expire=Setting(whole(10, 86400, "s"), "dht_t_expire", "time until a name is forgotten", also="dht_t_expiry"),
        t_refresh=Setting(whole(3, 3600, "s"), "dht_t_refresh", "time between refreshments"),
        t_replicate=Setting(whole(3, 3600, "s"), "dht_t_replicate", "time between copies"),
    )

    alpha: int = 3
    k: int = 8
    t_expire: int = 86400
    t_refresh: int = 900
    t_replicate: int = 900


class DirConfig(Checked):
    """The directory of a unicast layer. `pol`: where it is kept. `dht`: settings of the hash table."""

    checks = fields(
        pol=Setting(choice(DirectoryPolicy), "directory", "where names are kept"),
        dht=part(DhtConfig),
    )

    pol: DirectoryPolicy = DirectoryPolicy.DHT
    dht: DhtConfig = msgspec.field(default_factory=DhtConfig)


class UnicastConfig(Checked):
    """A unicast layer: data transfer, directory, how addresses are given out, congestion, and who may enroll.

    `enroll`: "anyone"; "certified", for those who prove by a certificate who they are; "nobody"; or names, of those who
    prove theirs (`docs/unicast.md`). It is kept as a tuple.

    >>> UnicastConfig(enroll=["alice", "bob"]).enroll
    ('alice', 'bob')
    """

    checks = fields(
        dt=part(DtConfig),
        dir=part(DirConfig),
        addr_auth=Setting(choice(AddressAuthPolicy), "addr_auth", "how addresses are given out", file="addr-auth"),
        cong_avoid=Setting(choice(CongestionAvoidPolicy), "congestion", "what is done against congestion"),
        enroll=Setting(admission(ANYONE, CERTIFIED, NOBODY), "enroll", "who may become a member", sort="WHO"),
    )

    dt: DtConfig = msgspec.field(default_factory=DtConfig)
    dir: DirConfig = msgspec.field(default_factory=DirConfig)
    addr_auth: AddressAuthPolicy = AddressAuthPolicy.FLAT_RANDOM
    cong_avoid: CongestionAvoidPolicy = CongestionAvoidPolicy.MB_ECN
    enroll: tuple[str, ...] = (ANYONE,)

    def check_for_prototype(self) -> None:
        """Raise `ValueError` if there is a setting that members of the C prototype do not have."""
        if self.enroll != (ANYONE,):
            raise ValueError("members of the C prototype let anyone enroll: leave enroll out")
        if self.dt.mtu != MTU:
            raise ValueError("members of the C prototype have no mtu in common: leave mtu out")


class EthConfig(Checked):
    """A layer on an Ethernet segment. `dev`: the network device. `ethertype`: 0x0600 to 0xFFFE; it matters for `ETH_DIX`."""

    checks = fields(
        dev=Setting(text(NAME_LENGTH), "device", "network device", sort="DEVICE", file="dev", required=True),
        ethertype=Setting(whole(0x0600, 0xFFFE, base=16), "ethertype", "of the frames", sort="HEX"),
    )

    dev: str = ""
    ethertype: int = 0xA000


#: Where layers over UDP are, unless told otherwise.
_PORT = 3435


def _of_udp(address: Check) -> Mapping[str, Setting]:
    return fields(
        ip_addr=Setting(address, "ip", "our address", required=True),
        dns_addr=Setting(address, "dns", "name server (not built; use peer)"),
        port=Setting(PORT, "port", "UDP port"),
        peers=Setting(
            peers(),
            "peer",
            "where a name is; others are looked up in /etc/hosts and the DNS by their MD5",
            file="peers",
        ),
    )


class Udp4Config(Checked):
    """A layer over UDP and IPv4. `ip_addr`: our address. `port`: 1 to 65535, the same on all nodes of the layer.

    `peers`: where names are, as `NAME@ADDRESS`; what is not there is looked up (`docs/udp.md`). `dns_addr`: 0.0.0.0; others
    are refused, because names are not registered with name servers. Addresses are strings, or objects of `ipaddress`.

    >>> Udp4Config("192.0.2.300")
    Traceback (most recent call last):
        ...
    ValueError: Udp4Config: ip_addr must be an IPv4 address, not '192.0.2.300'
    """

    checks = _of_udp(address(IPv4Address))

    ip_addr: str = "0.0.0.0"
    dns_addr: str = "0.0.0.0"
    port: int = _PORT
    peers: tuple[str, ...] = ()


class Udp6Config(Checked):
    """A layer over UDP and IPv6. `ip_addr`: our address. `port`: 1 to 65535, the same on all nodes of the layer.

    `peers`: where names are, as `NAME@ADDRESS`; what is not there is looked up (`docs/udp.md`). `dns_addr`: ::; others
    are refused, because names are not registered with name servers. Addresses are strings, or objects of `ipaddress`.
    """

    checks = _of_udp(address(IPv6Address))

    ip_addr: str = "::"
    dns_addr: str = "::"
    port: int = _PORT
    peers: tuple[str, ...] = ()


# --- what each type is told

#: Bytes of an address in a unicast layer.
_ADDRESS_SIZE = 4
#: Bytes of an impairment: more than all its words take.
_IMPAIR_LENGTH = 255

_HASH = Setting(choice(DirectoryHashAlgo), "hash", "hash of names", sort="ALGORITHM")
_IMPAIR = Setting(
    text(_IMPAIR_LENGTH, optional=True),
    "impair",
    "what it does to packets, such as loss=1%,delay=10ms,jitter=2ms,rate=10M",
)
# The command takes them all the same, as the prototype's does.
_UNUSED_HASH, _UNUSED_IMPAIR = replace(_HASH, quiet=True), replace(_IMPAIR, quiet=True)


class TypeSettings(Checked, array_like=True, tag_field="type"):
    """All that an IPC process of one type is told. Of what every type is told, some have no use for a part."""

    checks = fields(dir_hash_algo=_UNUSED_HASH, impair=_UNUSED_IMPAIR)

    dir_hash_algo: DirectoryHashAlgo = DirectoryHashAlgo.SHA3_256
    impair: str | None = None

    @classmethod
    def word(cls) -> str:
        """The type, as the `irm` command calls it."""
        return str(cls.__struct_config__.tag)

    def check(self) -> None:
        """Find out what is wrong as far as that can be told without the machine. Raises `IpcpBootstrapError` or
        `UnsupportedError` with a text that begins with the key."""


class LocalSettings(TypeSettings, tag="local"):
    """A layer within the node."""

    checks = fields(dir_hash_algo=_HASH, impair=_IMPAIR)


class UnicastSettings(TypeSettings, tag="unicast"):
    """A unicast layer."""

    checks = fields(dir_hash_algo=_HASH, impair=_UNUSED_IMPAIR, unicast=part(UnicastConfig))

    unicast: UnicastConfig = msgspec.field(default_factory=UnicastConfig)

    def check(self) -> None:
        size = self.unicast.dt.addr_size
        if size != _ADDRESS_SIZE:
            raise IpcpBootstrapError(
                f"addr: flat addresses have {_ADDRESS_SIZE} bytes, not {size}, and there are no others: leave it out"
            )


class BroadcastSettings(TypeSettings, tag="broadcast"):
    """A broadcast layer. It holds no names."""


class EthLlcSettings(TypeSettings, tag="eth-llc"):
    """A layer on an Ethernet segment, with LLC."""

    checks = fields(dir_hash_algo=_HASH, impair=_UNUSED_IMPAIR, eth=part(EthConfig, without=("ethertype",)))

    eth: EthConfig = msgspec.field(default_factory=EthConfig)


class EthDixSettings(TypeSettings, tag="eth-dix"):
    """A layer on an Ethernet segment, with DIX frames."""

    checks = fields(dir_hash_algo=_HASH, impair=_UNUSED_IMPAIR, eth=part(EthConfig))

    eth: EthConfig = msgspec.field(default_factory=EthConfig)


class UdpSettings(TypeSettings):
    """A layer over UDP, which hashes names in its own way."""

    @property
    def udp(self) -> Udp4Config | Udp6Config:
        told: Udp4Config | Udp6Config = getattr(self, self.word())
        return told

    def check(self) -> None:
        if self.udp.dns_addr not in UNSPECIFIED:
            raise UnsupportedError(
                "dns: names are not registered with a name server. Leave it out, and give the other node's names with "
                "`peer NAME@ADDRESS`, or in /etc/hosts or your DNS zone under the MD5 of the name"
            )
        if self.udp.ip_addr in UNSPECIFIED:
            raise IpcpBootstrapError(f"ip: give the address of this host in the layer, such as {EXAMPLES[self.word()]}")
        read_host(self.word(), "ip", self.udp.ip_addr)
        for peer in self.udp.peers:
            read_peer(self.word(), peer)


class Udp4Settings(UdpSettings, tag="udp4"):
    """A layer over UDP and IPv4."""

    checks = fields(dir_hash_algo=_UNUSED_HASH, udp4=part(Udp4Config), impair=_IMPAIR)

    udp4: Udp4Config = msgspec.field(default_factory=Udp4Config)


class Udp6Settings(UdpSettings, tag="udp6"):
    """A layer over UDP and IPv6."""

    checks = fields(dir_hash_algo=_UNUSED_HASH, udp6=part(Udp6Config), impair=_IMPAIR)

    udp6: Udp6Config = msgspec.field(default_factory=Udp6Config)


#: Sent over the control socket.
AnySettings = (
    LocalSettings | UnicastSettings | BroadcastSettings | EthLlcSettings | EthDixSettings | Udp4Settings | Udp6Settings
)

#: The settings of each type, by the words of the command, in the order of their numbers (`irm.md` 1.2).
TYPES: dict[str, type[AnySettings]] = {kind.word(): kind for kind in get_args(AnySettings)}


# --- what callers give


class IpcpConfig(Checked):
    """The configuration of an IPC process for `bootstrap_ipcp`, as a member of the layer `layer_name`.

    Of `unicast`, `eth` (for both Ethernet types), `udp4` and `udp6` only the one that belongs to `ipcp_type` can be given;
    None stands for its defaults. The UDP types hash names in their own way, whatever `dir_hash_algo` says.
    `impair`: what a layer of type local, udp4 or udp6 does to packets, as in `"loss=1%,delay=10ms"` (`docs/testing.md`);
    None: nothing.

    Raises `TypeError` or `ValueError` naming the field when a value does not fit.

    >>> conf = IpcpConfig(IpcpType.UDP4, "field", udp4=Udp4Config("192.0.2.1"))
    >>> conf.dir_hash_algo
    <DirectoryHashAlgo.SHA3_256: 1>
    """

    checks = fields(
        ipcp_type=choice(IpcpType),
        layer_name=text(NAME_LENGTH),
        **TypeSettings.checks,
        unicast=part(UnicastConfig, optional=True),
        eth=part(EthConfig, optional=True),
        udp4=part(Udp4Config, optional=True),
        udp6=part(Udp6Config, optional=True),
    )

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
        told = TYPES[self.ipcp_type.word].__struct_fields__
        for field in ("eth", "udp4", "udp6", "unicast"):
            if getattr(self, field) is not None and field not in told:
                raise ValueError(f"IpcpConfig: {field} means nothing for type {self.ipcp_type.word}: leave it out")


def settings_of(conf: IpcpConfig) -> AnySettings:
    """The settings in `conf` for an IPC process of its type."""
    kind = TYPES[conf.ipcp_type.word]
    return kind(**{field: getattr(conf, field) for field in kind.__struct_fields__})


# --- names

#: The longest path in a `NameSecPaths`, bytes.
_PATH_LENGTH = 511


class NameSecPaths(Checked):
    """Files with which a name proves what it is: `enc` encryption settings, `key` private key, `crt` certificate.

    Paths of at most 511 bytes; empty stands for the place in the security directory (`docs/security.md`).
    """

    checks = fields(enc=text(_PATH_LENGTH), key=text(_PATH_LENGTH), crt=text(_PATH_LENGTH))

    enc: str = ""
    key: str = ""
    crt: str = ""


class NameInfo(Checked):
    """A name. `create_name` uses the first four fields; `list_names` fills the others too.

    `pol_lb`: which acceptor gets the next flow. `server_sec`, `client_sec`: files for those who accept and who allocate.
    `programs`: base names of bound programs. `processes`: ids of bound processes. `layers`: where it is registered.

    >>> NameInfo("clock", LoadBalancePolicy.SPILL).pol_lb.word
    'spillover'
    """

    # Whether the name can be one is for the calls to say, which raise for other names as well.
    checks = fields(
        name=text(UINT32_MAX),
        pol_lb=choice(LoadBalancePolicy),
        server_sec=part(NameSecPaths),
        client_sec=part(NameSecPaths),
    )

    name: str
    pol_lb: LoadBalancePolicy = LoadBalancePolicy.ROUND_ROBIN
    server_sec: NameSecPaths = msgspec.field(default_factory=NameSecPaths)
    client_sec: NameSecPaths = msgspec.field(default_factory=NameSecPaths)
    programs: tuple[str, ...] = ()
    processes: tuple[int, ...] = ()
    layers: tuple[str, ...] = ()
