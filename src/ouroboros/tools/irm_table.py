"""The table of the `irm` command: every object, verb and key, with what its values can be. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ouroboros.irm import (
    AddressAuthPolicy,
    CongestionAvoidPolicy,
    DhtConfig,
    DirConfig,
    DirectoryHashAlgo,
    DirectoryPolicy,
    DtConfig,
    EthConfig,
    IpcpType,
    LinkStateConfig,
    LinkStatePolicy,
    LoadBalancePolicy,
    Udp4Config,
    Udp6Config,
    UnicastConfig,
)
from ouroboros.qos import NAMED_SPECS


@dataclass(frozen=True)
class Setting:
    """What a key of `ipcp bootstrap` sets: a field of a class of settings, which also knows the range of its values.

    `kinds`: the class for each type of IPC process that has the setting. `read`: makes the value of a word. `many`: the
    field holds the values of all words.
    """

    kinds: Mapping[IpcpType, type[Any]]
    field: str
    read: Callable[[str], Any]
    many: bool = False

    def value(self, words: Sequence[str], ipcp_type: IpcpType) -> Any:  # noqa: ANN401
        """The value for that type; raises `ValueError` with a text that begins after the name of the key."""
        value = tuple(map(self.read, words)) if self.many else self.read(words[0])
        return self.kinds[ipcp_type].checks[self.field](value)

    def check(self, word: str) -> None:
        """Raise `ValueError` when the word is no value for any type."""
        problem = None
        for ipcp_type in self.kinds:
            try:
                self.value([word], ipcp_type)
                return
            except ValueError as error:
                problem = error
        if problem is not None:
            raise problem


@dataclass(frozen=True)
class Key:
    """A key of a verb. Without `value` it is a flag; with `words`, the value is one of them or a prefix of one."""

    name: str
    value: str = ""
    help: str = ""
    required: bool = False
    many: bool = False
    words: tuple[str, ...] = ()
    setting: Setting | None = None


@dataclass(frozen=True)
class Verb:
    """One line of the grammar. `operand`: `<it>` must follow the verb, `[it]` may, empty may not."""

    object: str
    name: str
    operand: str
    keys: tuple[Key, ...]
    help: str
    takes_args: bool = False


# --- how words are read


def _decimal(word: str) -> int:
    if not (word.isascii() and word.isdigit()):
        raise ValueError(f"must be a whole number, not {word}")
    return int(word)


def _hexadecimal(word: str) -> int:
    digits = word.lower().removeprefix("0x")
    if not digits or not set(digits) <= set("0123456789abcdef"):
        raise ValueError(f"must be a hexadecimal number such as A000, not {word}")
    return int(digits, 16)


def _peer(word: str) -> str:
    if not all(word.rpartition("@")):
        raise ValueError(f"must be NAME@ADDRESS such as clock@192.0.2.7, not {word}")
    return word


def _address(word: str) -> str:
    """An address of either version; which of them fits is known when the type is."""
    try:
        return str(ipaddress.ip_address(word))
    except ValueError:
        raise ValueError(f"must be an IP address, not {word}") from None


# --- the table

_TYPES = tuple(ipcp_type.word for ipcp_type in IpcpType)
_ETH = {IpcpType.ETH_LLC: EthConfig, IpcpType.ETH_DIX: EthConfig}
_DIX = {IpcpType.ETH_DIX: EthConfig}
_UDP = {IpcpType.UDP4: Udp4Config, IpcpType.UDP6: Udp6Config}


def _unicast(kind: type[Any]) -> Mapping[IpcpType, type[Any]]:
    return {IpcpType.UNICAST: kind}


def _number(name: str, help: str, kind: type[Any], field: str) -> Key:
    setting = Setting(_unicast(kind), field, _decimal)
    return Key(name, "NUMBER", f"{help} (default {getattr(kind(), field)})", setting=setting)


def _word(name: str, help: str, kind: type[Any], field: str, choices: Iterable[Any]) -> Key:
    by_word = {choice.word: choice for choice in choices}
    setting = Setting(_unicast(kind), field, by_word.__getitem__)
    return Key(name, "WORD", f"{help} (default {getattr(kind(), field).word})", words=tuple(by_word), setting=setting)


_NAME = Key("name", "NAME", "the name", required=True)
_IPCP = Key("name", "NAME", "the IPC process", required=True)
_TYPE = Key("type", "TYPE", "its type", words=_TYPES)
_AUTOBIND = Key("autobind", help="accept flows for its own name and that of the layer (unicast, broadcast)")
_DST = Key("dst", "NAME", "the neighbour", required=True)
_COMPONENT = Key(
    "component", "WORD", "only management or only data transfer (default *: both)", words=("*", "dt", "mgmt")
)
_PLACES = (
    Key("ipcp", "NAME", "in the layer of this IPC process; * for all", many=True),
    Key("layer", "NAME", "in this layer; * for all", many=True),
)
_SECURITY_PATHS = tuple(
    Key(f"{side[0]}{file}path", "PATH", f"{what} of those who {does}")
    for side, does in (("server", "accept"), ("client", "allocate"))
    for file, what in (("enc", "encryption settings"), ("crt", "certificate"), ("key", "private key"))
)

_SETTINGS = (
    Key("dev", "DEVICE", "network device", setting=Setting(_ETH, "dev", str)),
    Key(
        "ethertype",
        "HEX",
        "of the frames, 0600 to FFFE (default A000)",
        setting=Setting(_DIX, "ethertype", _hexadecimal),
    ),
    Key("ip", "ADDRESS", "our address", setting=Setting(_UDP, "ip_addr", _address)),
    Key("port", "NUMBER", "UDP port (default 3435)", setting=Setting(_UDP, "port", _decimal)),
    Key("dns", "ADDRESS", "name server (not built; use peer)", setting=Setting(_UDP, "dns_addr", _address)),
    Key(
        "peer",
        "NAME@ADDRESS",
        "where a name is; others are looked up in /etc/hosts and the DNS by their MD5",
        many=True,
        setting=Setting(_UDP, "peers", _peer, many=True),
    ),
    _number("addr", "bytes of an address, 1 to 8", DtConfig, "addr_size"),
    _number("eid", "bytes of an endpoint id, 1 to 8", DtConfig, "eid_size"),
    _number("ttl", "hops until a packet is dropped, 1 to 255", DtConfig, "max_ttl"),
    _word("addr_auth", "how addresses are given out", UnicastConfig, "addr_auth", AddressAuthPolicy),
    _word("directory", "where names are kept", DirConfig, "pol", DirectoryPolicy),
    _number("dht_alpha", "questions at a time, 1 to 10", DhtConfig, "alpha"),
    _number("dht_k", "members that keep a name, 1 to 20", DhtConfig, "k"),
    _number("dht_t_expire", "seconds until a name is forgotten, 10 to 86400", DhtConfig, "t_expire"),
    _number("dht_t_refresh", "seconds between refreshments, 3 to 3600", DhtConfig, "t_refresh"),
    _number("dht_t_replicate", "seconds between copies, 3 to 3600", DhtConfig, "t_replicate"),
    _word("routing", "what is done with routes", LinkStateConfig, "pol", LinkStatePolicy),
    _number("ls_t_recalc", "seconds between computations of routes, 1 or more", LinkStateConfig, "t_recalc"),
    _number("ls_t_update", "seconds between updates of a link, 1 or more", LinkStateConfig, "t_update"),
    _number("ls_t_timeo", "seconds of silence until a link is gone, 1 or more", LinkStateConfig, "t_timeo"),
    _word("congestion", "what is done against congestion", UnicastConfig, "cong_avoid", CongestionAvoidPolicy),
)
_BOOTSTRAP = (
    _IPCP,
    Key("layer", "NAME", "the new layer", required=True),
    Key("type", "TYPE", "its type, needed if it does not exist", words=_TYPES),
    Key("hash", "ALGORITHM", "hash of names (default SHA3_256)", words=tuple(algo.word for algo in DirectoryHashAlgo)),
    _AUTOBIND,
    Key(
        "impair", "TEXT", "what it does to packets, for types local and udp: loss=1%,delay=10ms,jitter=2ms,rate=10M,..."
    ),
    *_SETTINGS,
)
_ENROLL = (
    _IPCP,
    Key("layer", "NAME", "the layer"),
    Key("dst", "NAME", "the member to ask (default: the layer)"),
    Key("type", "TYPE", "its type, if it does not exist (default unicast)", words=("unicast", "broadcast")),
    _AUTOBIND,
)
_CONNECT = (
    _IPCP,
    _DST,
    _COMPONENT,
    Key("qos", "QOS", "of the data transfer flow (default raw)", words=tuple(NAMED_SPECS)),
)
_POLICY = Key(
    "lb", "POLICY", "who gets the next flow (default round-robin)", words=tuple(each.word for each in LoadBalancePolicy)
)

#: The grammar. The order decides what a prefix stands for.
VERBS = (
    Verb("ipcp", "create", "", (_IPCP, Key("type", "TYPE", "its type", True, words=_TYPES)), "create an IPC process"),
    Verb("ipcp", "destroy", "", (_IPCP,), "destroy an IPC process"),
    Verb("ipcp", "bootstrap", "", _BOOTSTRAP, "start a layer, with an IPC process that is created if need be"),
    Verb(
        "ipcp",
        "impair",
        "",
        (_IPCP, Key("impair", "TEXT", "what its layer does to packets from now on; none: nothing", required=True)),
        "change what an impaired layer does to packets",
    ),
    Verb(
        "ipcp",
        "peer",
        "",
        (
            _IPCP,
            Key("add", "NAME@ADDRESS", "look for this name there", many=True),
            Key("del", "NAME@ADDRESS", "no more; this is done first", many=True),
        ),
        "change where a layer over UDP looks for names",
    ),
    Verb("ipcp", "enroll", "", _ENROLL, "join a layer, with an IPC process that is created if need be"),
    Verb("ipcp", "connect", "", _CONNECT, "connect an IPC process to a neighbour"),
    Verb("ipcp", "disconnect", "", (_IPCP, _DST, _COMPONENT), "disconnect an IPC process from a neighbour"),
    Verb(
        "ipcp",
        "list",
        "",
        (Key("name", "NAME", "only this one"), Key("layer", "NAME", "only of this layer"), _TYPE),
        "list IPC processes",
    ),
    Verb(
        "bind",
        "program",
        "<program>",
        (_NAME, Key("auto", help="start it, with ARGUMENTS, when a flow is asked for and nobody accepts")),
        "bind a program to a name",
        takes_args=True,
    ),
    Verb("bind", "process", "<pid>", (_NAME,), "bind a running process to a name"),
    Verb("bind", "ipcp", "<ipcp>", (_NAME,), "bind an IPC process to a name"),
    Verb("unbind", "program", "<program>", (_NAME,), "undo 'bind program'"),
    Verb("unbind", "process", "<pid>", (_NAME,), "undo 'bind process'"),
    Verb("unbind", "ipcp", "<ipcp>", (_NAME,), "undo 'bind ipcp'"),
    Verb("name", "create", "<name>", (_POLICY, *_SECURITY_PATHS), "create a name"),
    Verb("name", "destroy", "<name>", (), "destroy a name with its bindings"),
    Verb("name", "register", "<name>", _PLACES, "publish a name in layers, creating it if need be"),
    Verb("name", "unregister", "<name>", _PLACES, "take a name out of layers"),
    Verb("name", "list", "[prefix]", (), "list names"),
    Verb("flow", "list", "", (), "list flows"),
    Verb("completion", "bash", "", (), "print a script that completes irm in bash: eval it in ~/.bashrc"),
    Verb("completion", "zsh", "", (), "print a script that completes irm in zsh: eval it in ~/.zshrc, after compinit"),
    Verb("completion", "fish", "", (), "print a script that completes irm in fish: source it in config.fish"),
)
