"""The table of the `irm` command: every object, verb and key, with what its values can be. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ouroboros._checks import Setting, described
from ouroboros.irm import LoadBalancePolicy
from ouroboros.qos import NAMED_SPECS
from ouroboros.settings import TYPES, TypeSettings


@dataclass(frozen=True)
class Key:
    """A key of a verb. Without `value` it is a flag; with `words`, the value is one of them or a prefix of one. `live`: what
    of the running node fits, for completion: one of `irm_help.LIVE`. `settings`: what it sets, by type of IPC process."""

    name: str
    value: str = ""
    help: str = ""
    required: bool = False
    many: bool = False
    words: tuple[str, ...] = ()
    settings: dict[str, Setting] = field(default_factory=dict)
    live: str = ""

    @property
    def special(self) -> bool:
        """Only some types have that setting."""
        return 0 < len(self.settings) < len(TYPES)

    def check(self, word: str) -> None:
        """Raise `ValueError` when the word is no value for any type."""
        problem = None
        for setting in self.settings.values():
            try:
                setting.value([word])
                return
            except ValueError as error:
                problem = error
        if problem is not None:
            raise problem


@dataclass(frozen=True)
class Verb:
    """One line of the grammar. `operand`: `<it>` must follow the verb, `[it]` may, empty may not. `name`: empty for an
    object that is a verb by itself."""

    object: str
    name: str
    operand: str
    keys: tuple[Key, ...]
    help: str
    takes_args: bool = False

    @property
    def words(self) -> str:
        """The words by which it is asked for."""
        return f"{self.object} {self.name}".strip()

    @property
    def shows(self) -> bool:
        """It prints what there is, as a table or as JSON."""
        return self.name in ("list", "show")


# --- the table

# In the prototype's order, for what a prefix stands for.
_TYPES = ("unicast", "broadcast", "udp4", "udp6", "eth-dix", "eth-llc", "local")
#: In which their settings are looked up, with the same result.
_ORDER = ("local", "udp4", "udp6", "eth-dix", "eth-llc", "unicast", "broadcast")


def setting_keys(types: Mapping[str, type[TypeSettings]]) -> list[Key]:
    """A key for each setting of these types."""
    keys: dict[str, Key] = {}
    for word, kind in types.items():
        for setting, default in described(kind):
            check, name = setting.check, setting.key
            value, help = setting.sort or check.sort, setting.about(default)
            key = Key(name, value, help, many=check.many, words=check.words)
            keys.setdefault(name, key).settings[word] = setting
    return list(keys.values())


_NAME = Key("name", "NAME", "the name", required=True, live="names")
_IPCP = Key("name", "NAME", "the IPC process", required=True, live="ipcps")
_NEW_IPCP = Key("name", "NAME", "the IPC process", required=True)
_TYPE = Key("type", "TYPE", "its type", words=_TYPES)
_AUTOBIND = Key(
    "autobind", help="accept flows for its own name and that of the layer, and register both in other layers (unicast)"
)
_DST = Key("dst", "NAME", "the neighbour", required=True, live="names")
_COMPONENT = Key(
    "component", "WORD", "only management or only data transfer (default *: both)", words=("*", "dt", "mgmt")
)
_PLACES = (
    Key("ipcp", "NAME", "in the layer of this IPC process; * for all", many=True, live="ipcps"),
    Key("layer", "NAME", "in this layer; * for all", many=True, live="layers"),
)
_SECURITY_PATHS = tuple(
    Key(f"{side[0]}{file}path", "PATH", f"{what} of those who {does}")
    for side, does in (("server", "accept"), ("client", "allocate"))
    for file, what in (("enc", "encryption settings"), ("crt", "certificate"), ("key", "private key"))
)

# A prefix stands for what it stands for in the prototype; `impair`, which is ours, comes after `ip`.
_SETTINGS = sorted(setting_keys({word: TYPES[word] for word in _ORDER}), key=lambda key: key.name == "impair")
_BOOTSTRAP = (
    _IPCP,
    Key("layer", "NAME", "the new layer", required=True),
    Key("type", "TYPE", "its type, needed if it does not exist", words=_TYPES),
    *_SETTINGS[:-1],
    _AUTOBIND,
    _SETTINGS[-1],
)
_OVER = Key(
    "over", "LAYER", "by way of this layer below; of several, over each (default: any)", many=True, live="layers"
)
_ENROLL = (
    _IPCP,
    Key("layer", "NAME", "the layer"),
    Key("dst", "NAME", "the member to ask (default: the layer)"),
    Key("type", "TYPE", "its type, if it does not exist (default unicast)", words=("unicast", "broadcast")),
    _AUTOBIND,
    Key("connect", "WORD", "to the member that was asked (default yes)", words=("yes", "no")),
    Key("timeout", "SECONDS", "until it fails (default 6)"),
    _OVER,
    Key("any", help="whatever layer nodes on the Ethernet segments offer; of several, say its layer or type"),
)
_CONNECT = (
    _IPCP,
    _DST,
    _COMPONENT,
    Key("qos", "QOS", "of the data transfer flow (default raw)", words=tuple(NAMED_SPECS)),
    _OVER,
)
_POLICY = Key(
    "lb", "POLICY", "who gets the next flow (default round-robin)", words=tuple(each.word for each in LoadBalancePolicy)
)

#: The grammar. The order decides what a prefix stands for.
VERBS = (
    Verb(
        "ipcp", "create", "", (_NEW_IPCP, Key("type", "TYPE", "its type", True, words=_TYPES)), "create an IPC process"
    ),
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
        (
            Key("name", "NAME", "only this one", live="ipcps"),
            Key("layer", "NAME", "only of this layer", live="layers"),
            _TYPE,
        ),
        "list IPC processes",
    ),
    Verb(
        "ipcp",
        "keepalive",
        "",
        (_IPCP, Key("every", "SECONDS", "between two, if nothing else is sent (default 10)", required=True)),
        "change how often a unicast one lets neighbours hear of it, in connections that it asks for",
    ),
    Verb("layer", "show", "[layer]", (), "show members of layers: neighbours, routes and names"),
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
    Verb("save", "", "[file]", (), "write what the node has as a configuration file for irmd"),
    Verb("completion", "bash", "", (), "print a script that completes irm in bash: eval it in ~/.bashrc"),
    Verb("completion", "zsh", "", (), "print a script that completes irm in zsh: eval it in ~/.zshrc, after compinit"),
    Verb("completion", "fish", "", (), "print a script that completes irm in fish: source it in config.fish"),
)

#: The first words, in the order of the table.
OBJECTS = tuple(dict.fromkeys(verb.object for verb in VERBS))
