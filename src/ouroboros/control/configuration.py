"""The configuration file of `irmd`: names, bindings and IPC processes that a node has from the start. Pure.

`parse` turns the text (TOML) into a `Configuration`; each of its entries turns itself into the requests that the `irm`
command would send. The grammar is that of the C prototype (`irm.md` 12.2), with these differences: unknown keys are errors,
names come before IPC processes whatever the order in the file, `autobind = false` binds nothing, and "spillover", the
command's word, is as good as "spill". A member that enrolls connects to whom it enrolled with: `conn` means other members
in the place of that one, and `connect = false` none. `[strangers]` says what other nodes may have of this one, `[users]`
what programs of users other than the owner may have it do.

What needs a neighbour may have to wait for it. Such steps of a table are for the node to carry out later, and to try again.
"""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from ouroboros._checks import Checked, Setting, assembled, described
from ouroboros.control.names import check_name, check_path
from ouroboros.control.shares import Kind
from ouroboros.errors import IpcpBootstrapError, IpcpEnrollError, IrmError, OuroborosError, UnsupportedError
from ouroboros.layers.impairment import parse as parse_impairment
from ouroboros.qos import NAMED_SPECS
from ouroboros.settings import TYPES, AnySettings, Strangers, Users
from ouroboros.wire.control import (
    LEAST_KEEPALIVE,
    MOST_KEEPALIVE,
    BindProcess,
    BindProgram,
    BootstrapIpcp,
    ConnectIpcp,
    CreateIpcp,
    CreateName,
    DestroyIpcp,
    DiscoverLayers,
    EnrollIpcp,
    IpcpEntry,
    KeepAliveIpcp,
    ListIpcps,
    ListNames,
    NameEntry,
    NameSecurity,
    OfferEntry,
    RegisterName,
    Request,
)


class ConfigurationError(IrmError):
    """The configuration cannot be used; the text names the table, the key and what is wrong."""


#: Sends a request to the node and gives the value of its answer; raises the exception that the answer names.
Ask = Callable[[Request], Any]
#: The absolute path of a program that is called by its base name, None when there is none such.
Find = Callable[[str], str | None]
#: Requests one after the other; each is answered by the value of its answer, or its exception is thrown in.
Steps = Generator[Request, Any, None]
#: Carries steps out in its own time, and from the beginning again while one of them fails. The text: what they are for.
Later = Callable[[str, Callable[[], Steps]], None]

#: What members connect, in this order: routes go by the first, packets by the second.
COMPONENTS = ("Management", "Data Transfer")
#: Types whose members know others by name, in other layers, and what is connected between two.
NETWORKED = {"unicast": COMPONENTS, "broadcast": COMPONENTS[1:]}


class Entry(Protocol):
    """One table of the file."""

    @property
    def title(self) -> str:
        """The table as the file has it, such as `[name.clock]`."""

    def apply(self, ask: Ask, find: Find, later: Later) -> None:
        """Bring about what the table says. What is there already stays as it is."""


class Program(msgspec.Struct, frozen=True):
    """A program of a name. `path`: absolute, or a base name. With `args` the node starts it on demand."""

    path: str
    args: tuple[str, ...] | None = None

    @property
    def base_name(self) -> str:
        return self.path.rpartition("/")[2]


class NameTable(msgspec.Struct, frozen=True):
    """`[name.<name>]`."""

    name: str
    policy: str = "spillover"
    programs: tuple[Program, ...] = ()
    security: NameSecurity | None = None

    @property
    def title(self) -> str:
        return f"[name.{bare_key(self.name)}]"

    def apply(self, ask: Ask, find: Find, later: Later) -> None:
        ask(CreateName(self.name, self.policy, self.security))
        entries: list[NameEntry] = ask(ListNames())
        bound = next(entry.programs for entry in entries if entry.name == self.name)
        for program in self.programs:
            if program.base_name not in bound:
                path = self._path(program, find)
                ask(BindProgram(path, self.name, program.args is not None, list(program.args or ())))

    def _path(self, program: Program, find: Find) -> str:
        """Where the program is. One that others start is known by its base name, and may be installed later."""
        found = program.path if program.path.startswith("/") else find(program.path)
        if found is None and program.args is not None:
            raise ConfigurationError(f"prog: there is no program {program.path!r} to start: give its absolute path")
        return found or f"/{program.path}"


class Offered(msgspec.Struct, frozen=True):
    """Whatever layer other nodes offer to newcomers. `layer`: only the one of that name; empty: any. `over`: layers below to
    ask in; none: all. `connects`: to the member that takes it in."""

    layer: str = ""
    over: tuple[str, ...] = ()
    connects: bool = True


class IpcpTable(msgspec.Struct, frozen=True):
    """`[<type>.<ipcp>]`. `layer` is empty when the IPC process is not bootstrapped. `enrol`: the member to enroll with, if
    any. `neighbours`: to connect to. `bind`: names that it takes flows to, beside those of `autobind`. `qualities`: of data
    transfer, words for the QoS by the name of the neighbour; to others it is raw. `over`: layers below by the name of the
    neighbour, each of which carries a connection; to others it is any. `offered`: enroll with whoever answers."""

    type: str
    name: str
    layer: str = ""
    settings: AnySettings | None = None
    autobind: bool = False
    register: tuple[str, ...] = ()
    enrol: str = ""
    neighbours: tuple[str, ...] = ()
    bind: tuple[str, ...] = ()
    qualities: dict[str, str] = {}
    #: Seconds between keepalives; None: as it is.
    keepalive: float | None = None
    over: dict[str, tuple[str, ...]] = {}
    offered: Offered | None = None

    @property
    def title(self) -> str:
        return f"[{self.type}.{bare_key(self.name)}]"

    @property
    def enrolls(self) -> bool:
        return bool(self.enrol or self.offered)

    @property
    def connects(self) -> bool:
        """To whom it enrolls with, or to others in the place of that one."""
        return self.offered.connects if self.offered else bool(self.neighbours or not self.enrol)

    def apply(self, ask: Ask, find: Find, later: Later) -> None:
        id = self._bring_up(ask)
        if self.keepalive is not None:
            ask(KeepAliveIpcp(id, self.keepalive))
        if not self.enrolls:
            _follow(self._be_known(), ask)
        if self.enrolls or self.neighbours:
            later(self.title, self._be_member)

    def _be_member(self) -> Steps:
        """Enroll, if it is in no layer, and connect."""
        mine, _ = yield from self._found()
        if self.offered is not None and not (mine.layer and mine.connections):
            yield from self._enter_offered(mine, self.offered)
        elif self.enrol and not mine.layer:
            yield EnrollIpcp(mine.id, self.enrol, self.enrol in self.neighbours, over=self.over.get(self.enrol, ()))
        if self.enrolls:
            yield from self._be_known()
        for name in self.neighbours:
            for over in self.over.get(name, ("",)):
                for component in NETWORKED[self.type]:
                    word = self.qualities.get(name, "raw") if component == COMPONENTS[1] else "raw"
                    yield ConnectIpcp(mine.id, component, name, NAMED_SPECS[word], over)

    def _enter_offered(self, mine: IpcpEntry, offered: Offered) -> Steps:
        """Enroll, if it is in no layer, with the first member that takes it in, and connect to the first that lets it."""
        wanted, enrolled = mine.layer or offered.layer, bool(mine.layer)
        offers: list[OfferEntry] = yield DiscoverLayers(offered.over)
        failures: list[str] = []
        # Several have one name, where it is that of the layer: whoever is there answers.
        for member, over in dict.fromkeys((each.member, each.over) for each in self._of_one_layer(offers, wanted)):
            try:
                if not enrolled:
                    yield EnrollIpcp(mine.id, member, offered.connects, over=(over,))
                enrolled = True
                for component in NETWORKED[self.type] if offered.connects else ():
                    yield ConnectIpcp(mine.id, component, member, NAMED_SPECS["raw"], over)
            except OuroborosError as error:
                failures.append(str(error))
            else:
                return
        raise IpcpEnrollError("; ".join(failures))

    def _of_one_layer(self, offers: Sequence[OfferEntry], wanted: str) -> list[OfferEntry]:
        found = [each for each in offers if each.type == self.type and wanted in ("", each.layer)]
        if not found:
            what = f"layer {wanted!r}" if wanted else "layer"
            raise ConfigurationError(f"any: no node offers a {self.type} {what}, by a member with autobind")
        if len({each.layer for each in found}) > 1:
            raise ConfigurationError(
                f"any: several layers answer: {'; '.join(map(str, found))}. Say the name of one instead of true"
            )
        return found

    def _be_known(self) -> Steps:
        """Bind it to its own name and that of its layer, with which others enroll, and register names."""
        mine, others = yield from self._found()
        for name in dict.fromkeys((self.name, mine.layer)) if self.autobind else ():
            if name:
                yield BindProcess(mine.id, name)
            if name:
                for other in others:
                    yield RegisterName(name, other.id)
        for name in self.bind:
            yield BindProcess(mine.id, name)
        for name in self.register:
            yield CreateName(name, "spillover")
            yield RegisterName(name, mine.id)

    def _found(self) -> Generator[Request, Any, tuple[IpcpEntry, list[IpcpEntry]]]:
        """Its entry, and those by which members of its layer may be reached."""
        entries: list[IpcpEntry] = yield ListIpcps()
        mine = next((entry for entry in entries if entry.name == self.name), None)
        if mine is None:
            raise ConfigurationError("its IPC process was destroyed")
        holders = (each for each in entries if each.type != "broadcast" and each.state == "operational")
        return mine, [each for each in holders if each.layer != mine.layer]

    def _bring_up(self, ask: Ask) -> int:
        entries: list[IpcpEntry] = ask(ListIpcps())
        known = next((entry for entry in entries if entry.name == self.name), None)
        if known is not None and (known.type != self.type or (self.layer and known.layer not in ("", self.layer))):
            where = f"in layer {known.layer!r}" if known.layer else "in no layer"
            raise ConfigurationError(
                f"the node has an IPC process {self.name!r}, {known.type}, {where}: destroy it first"
            )
        id: int = ask(CreateIpcp(self.name, self.type)) if known is None else known.id
        if self.layer and (known is None or not known.layer):
            self._bootstrap(ask, id, created=known is None)
        return id

    def _bootstrap(self, ask: Ask, id: int, *, created: bool) -> None:
        try:
            ask(BootstrapIpcp(id, self.layer, self.settings))
        except OuroborosError:
            if created:
                ask(DestroyIpcp(id))
            raise


class ShareTable(msgspec.Struct, frozen=True):
    """`[share.<kind>]`: of users other than the owner. None: as it is."""

    kind: Kind
    user: int | None = None
    users: int | None = None


class Configuration(msgspec.Struct, frozen=True):
    """All that a file says, in the order in which it is brought about. `shares` are for the node itself."""

    names: tuple[NameTable, ...] = ()
    ipcps: tuple[IpcpTable, ...] = ()
    shares: tuple[ShareTable, ...] = ()
    #: What the node has for others, be it in the file or not.
    strangers: Strangers = msgspec.field(default_factory=Strangers)
    users: Users = msgspec.field(default_factory=Users)

    def apply(self, ask: Ask, find: Find, later: Later) -> Iterator[ConfigurationError | None]:
        """Bring the tables about, one for each step; gives the error of a table that failed, naming the table."""
        entries: tuple[Entry, ...] = (*self.names, *self.ipcps)
        for entry in entries:
            try:
                entry.apply(ask, find, later)
            except OuroborosError as error:
                yield ConfigurationError(f"{entry.title} {error}")
            else:
                yield None


def _follow(steps: Steps, ask: Ask) -> None:
    answer = None
    with contextlib.suppress(StopIteration):
        while True:
            answer = ask(steps.send(answer))


# --- parsing


def parse(text: str) -> Configuration:
    """Read the text of a file. Raises `ConfigurationError` for the first thing in it that is wrong."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"no TOML: {error}") from error
    names: list[NameTable] = []
    ipcps: list[IpcpTable] = []
    shares: list[ShareTable] = []
    single: dict[str, Any] = {top: kind() for top, kind in _SINGLE.items()}
    for top, tables in document.items():
        _check_top(top, tables)
        if top in _SINGLE:
            single[top] = _parse_single(top, tables)
            continue
        for name, table in tables.items():
            if not isinstance(table, dict):
                raise ConfigurationError(
                    f"[{top}] {bare_key(name)}: a key without a table; write [{top}.<name>] above it"
                )
            if top == "name":
                names.append(_parse_name(_Table(f"[name.{bare_key(name)}]", table, _NAME_KEYS), name))
            elif top == "share":
                shares.append(_parse_share(name, table))
            else:
                ipcps.append(_parse_ipcp(top, name, table))
    _check_together(ipcps)
    return Configuration(tuple(names), tuple(ipcps), tuple(shares), **single)


def bare_key(name: str) -> str:
    """A name as TOML writes it."""
    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else msgspec.json.encode(name).decode()


def is_spelled(args: Sequence[str]) -> bool:
    """Whether arguments can be written as one string, where blanks separate them and nothing quotes them."""
    return " ".join(args).split() == list(args)


def _check_top(top: str, tables: object) -> None:
    known = {each: f"[{each}.<name>]" for each in ("name", *TYPES, "share")} | {each: f"[{each}]" for each in _SINGLE}
    if top not in known:
        raise ConfigurationError(f"[{bare_key(top)}] unknown table: known are {', '.join(known.values())}")
    if not isinstance(tables, dict):
        raise ConfigurationError(f"{top}: not a table; write {known[top]}")


#: Tables that there are but once: settings of the node.
_SINGLE: dict[str, type[Strangers | Users]] = {"strangers": Strangers, "users": Users}


class _Key(msgspec.Struct, frozen=True):
    """A key of a table."""

    type: Any
    what: str


_STRINGS = _Key(list[str], "an array of strings")
_NAME_KEYS = {
    "prog": _STRINGS,
    "args": _Key(list[str | list[str]], "an array of strings, or of arrays of strings"),
    "lb": _Key(str, '"spill" or "round-robin"'),
} | {
    f"{side}_{kind}_file": _Key(str, "an absolute path")
    for side in ("server", "client")
    for kind in ("enc", "crt", "key")
}
#: Keys of an IPC process beside the settings of its type.
_LAYER = {"bootstrap": _Key(str, "the name of a layer")}
_NAMES = {"reg": _STRINGS}
_BIND = {"bind": _STRINGS}
_AUTOBIND = {"autobind": _Key(bool, "true or false")}
_MEMBERS = {
    **_AUTOBIND,
    "enrol": _Key(str, "a name"),
    "any": _Key(bool | str, "true, false or the name of a layer"),
    "any_over": _STRINGS,
    "conn": _STRINGS,
    "connect": _Key(bool, "true or false"),
    "conn_qos": _Key(dict[str, str], "a table of neighbours, each with one of " + ", ".join(NAMED_SPECS)),
    "conn_over": _Key(dict[str, list[str]], "a table of neighbours, each with an array of layers"),
    "keepalive": _Key(float, "a number of seconds"),
}
#: Keys beside the settings, by type.
_OTHERS = {
    "broadcast": {key: each for key, each in _MEMBERS.items() if key != "conn_qos"},
    "unicast": _NAMES | _MEMBERS,
}
_SHARE_KEYS = dict.fromkeys(("user", "users"), _Key(int, "a whole number from 0 on"))
_POLICIES = {"spill": "spillover", "spillover": "spillover", "round-robin": "round-robin"}


class _Table:
    """The values of one table, checked against its keys."""

    def __init__(self, title: str, values: Mapping[str, object], keys: Mapping[str, _Key]) -> None:
        self.title = title
        self._values = values
        self._keys = keys
        for key in values:
            if key not in keys:
                known = ", ".join(keys)
                raise self.error(bare_key(key), f"unknown key; known are {known}")

    def error(self, key: str, text: object) -> ConfigurationError:
        return ConfigurationError(f"{self.title} {key}: {text}")

    def has(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str, default: Any) -> Any:  # noqa: ANN401
        """The value of the key, of its type; the default when the table does not have it."""
        if key not in self._values:
            return default
        value = self._values[key]
        try:
            return msgspec.convert(value, self._keys[key].type)
        except msgspec.ValidationError:
            raise self.wrong(key) from None

    def wrong(self, key: str) -> ConfigurationError:
        """The value of the key is not what it should be."""
        return self.error(key, f"must be {self._keys[key].what}, not {_shown(self._values[key])}")

    def choose(self, key: str, default: str, known: Mapping[str, object]) -> str:
        value: str = self.get(key, default)
        if value not in known:
            raise self.wrong(key)
        return value

    def names(self, key: str) -> tuple[str, ...]:
        """An array of names, each once."""
        values: list[str] = self.get(key, [])
        for value in values:
            self.check(key, value)
            if values.count(value) > 1:
                raise self.error(key, f"{value!r} is there twice")
        return tuple(values)

    def check(self, key: str, name: str, what: str = "name") -> str:
        try:
            return check_name(name, what)
        except OuroborosError as error:
            raise self.error(key, error) from error


def _shown(value: object) -> str:
    """A value as the file has it, more or less; dates have no other form here."""
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError):
        return str(value)


def _check_title(title: str, name: str, what: str) -> None:
    try:
        check_name(name, what)
    except OuroborosError as error:
        raise ConfigurationError(f"{title} {error}") from error


def _parse_name(table: _Table, name: str) -> NameTable:
    _check_title(f"[name.{bare_key(name)}]", name, "name")
    policy = _POLICIES[table.choose("lb", "spill", _POLICIES)]
    return NameTable(name, policy, _parse_programs(table), _parse_security(table))


def _parse_share(name: str, values: Mapping[str, object]) -> ShareTable:
    title = f"[share.{bare_key(name)}]"
    if name not in list(Kind):
        raise ConfigurationError(f"{title} unknown share: known are {', '.join(Kind)}")
    table = _Table(title, values, _SHARE_KEYS)
    user, users = (_parse_count(table, key) for key in _SHARE_KEYS)
    if user is not None and users is not None and user > users:
        raise table.error("user", f"one user cannot have more ({user}) than all of them ({users})")
    return ShareTable(Kind(name), user, users)


def _parse_count(table: _Table, key: str) -> int | None:
    value: int | None = table.get(key, None)
    if value is not None and value < 0:
        raise table.wrong(key)
    return value


def _parse_security(table: _Table) -> NameSecurity | None:
    keys = [f"{side}_{kind}_file" for side in ("server", "client") for kind in ("enc", "crt", "key")]
    if not any(table.has(key) for key in keys):
        return None
    return NameSecurity(*(_parse_path(table, key) for key in keys))


def _parse_path(table: _Table, key: str) -> str | None:
    path: str | None = table.get(key, None)
    try:
        if path is not None:
            check_path(path)
    except OuroborosError as error:
        raise table.error(key, error) from error
    return path


def _parse_programs(table: _Table) -> tuple[Program, ...]:
    paths: list[str] = table.get("prog", [])
    lines: list[str | list[str]] = table.get("args", [])
    if len(lines) > len(paths):
        raise table.error("args", f"has {len(lines)} entries for {len(paths)} programs in prog")
    # In a string blanks separate arguments, and nothing quotes them. Programs without an entry are not started by the node.
    args = [tuple(line.split() if isinstance(line, str) else line) for line in lines]
    if any("\0" in each for line in args for each in line):
        raise table.error("args", "has a null character in it, which no argument can have")
    programs = tuple(Program(path, args[i] if i < len(args) else None) for i, path in enumerate(paths))
    base_names = [program.base_name for program in programs]
    for program in programs:
        table.check("prog", program.base_name, "program name")
        if ("/" in program.path and not program.path.startswith("/")) or "\0" in program.path:
            raise table.error("prog", f"{program.path!r} must be an absolute path, or a base name")
        if base_names.count(program.base_name) > 1:
            raise table.error("prog", f"{program.base_name!r} is there twice; programs are known by their base names")
    return programs


def _parse_ipcp(type: str, name: str, values: Mapping[str, object]) -> IpcpTable:
    title = f"[{type}.{bare_key(name)}]"
    _check_title(title, name, "name of an IPC process")
    if type == "broadcast" and "reg" in values:
        raise ConfigurationError(f"{title} reg: a broadcast layer holds no names; leave it out")
    told = setting_keys(TYPES[type])
    others = _OTHERS.get(type, _NAMES)
    keys = {key: _Key(each.check.toml, _what(each)) for key, each in told.items()}
    table = _Table(title, values, _LAYER | _BIND | others | keys)
    layer = table.check("bootstrap", table.get("bootstrap", ""), "layer name") if table.has("bootstrap") else ""
    given = {
        key: each for key, each in told.items() if table.has(key) and not (each.check.emptied and values[key] == "")
    }
    _check_once(table, given)
    settings = assembled(TYPES[type], {each.key: _setting(table, key, each) for key, each in given.items()})
    _check_settings(table, settings, complete=bool(layer))
    offered = _parse_offered(table) if type in NETWORKED else None
    enrol, neighbours = _parse_members(table) if type in NETWORKED else ("", ())
    qualities = _parse_qualities(table, neighbours) if type == "unicast" else {}
    register = table.names("reg") if type != "broadcast" else ()
    if register and not (layer or enrol or offered):
        raise table.error("reg", f"names are registered in a layer; add bootstrap{' or enrol' * (type == 'unicast')}")
    autobind = "autobind" in others and table.get("autobind", False)
    keepalive = _parse_keepalive(table) if type in NETWORKED else None
    # The layer of one that enrolls is that of whom it enrolls with.
    bind = table.names("bind")
    layer = "" if enrol else layer
    over = _parse_over(table, neighbours) if type in NETWORKED else {}
    return IpcpTable(
        type, name, layer, settings, autobind, register, enrol, neighbours, bind, qualities, keepalive, over, offered
    )


def _parse_qualities(table: _Table, neighbours: tuple[str, ...]) -> dict[str, str]:
    qualities: dict[str, str] = table.get("conn_qos", {})
    _check_neighbours(table, "conn_qos", qualities, neighbours)
    for name, word in qualities.items():
        if word not in NAMED_SPECS:
            raise table.error("conn_qos", f"{name!r} must have one of {', '.join(NAMED_SPECS)}, not {_shown(word)}")
    return {name: word for name, word in qualities.items() if word != "raw"}


def _parse_over(table: _Table, neighbours: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    layers: dict[str, list[str]] = table.get("conn_over", {})
    _check_neighbours(table, "conn_over", layers, neighbours)
    for layer in (layer for each in layers.values() for layer in each):
        table.check("conn_over", layer, "layer to connect over")
    return {name: tuple(dict.fromkeys(each)) for name, each in layers.items() if each}


def _check_neighbours(table: _Table, key: str, given: Iterable[str], neighbours: tuple[str, ...]) -> None:
    for name in given:
        if name not in neighbours:
            raise table.error(key, f"{name!r} is no neighbour that it is to connect to: name it in conn, too")


def _parse_keepalive(table: _Table) -> float | None:
    if not table.has("keepalive"):
        return None
    seconds: float = table.get("keepalive", 0.0)
    if not LEAST_KEEPALIVE <= seconds <= MOST_KEEPALIVE:
        raise table.error("keepalive", f"{seconds} seconds; {LEAST_KEEPALIVE} to {MOST_KEEPALIVE:.0f} are allowed")
    return float(seconds)


def _parse_offered(table: _Table) -> Offered | None:
    """Which layer it enters of those that others offer; None: it does not ask for them."""
    said: bool | str = table.get("any", False)
    layer = table.check("any", said, "layer name") if isinstance(said, str) else ""
    over = table.names("any_over")
    if said is False:
        if over:
            raise table.error("any_over", "says where to ask for layers, and any whether to: add any = true")
        return None
    for other in ("enrol", "bootstrap"):
        if table.has(other):
            raise table.error("any", f"takes the layer that there is, and {other} says which: leave one of them out")
    return Offered(layer, over, table.get("connect", True))


def _parse_members(table: _Table) -> tuple[str, tuple[str, ...]]:
    """With whom an IPC process enrolls, and to whom it connects."""
    enrol = table.check("enrol", table.get("enrol", ""), "name to enroll with") if table.has("enrol") else ""
    connects = table.get("connect", True)
    if table.has("conn"):
        if not connects:
            raise table.error("conn", "these are connections, and connect = false is for none: leave one of them out")
        if not (enrol or table.has("bootstrap") or table.get("any", False)):
            raise table.error("conn", "only a member of a layer has neighbours; add enrol or bootstrap")
        return enrol, table.names("conn")
    return enrol, (enrol,) if enrol and connects else ()


def _check_once(table: _Table, given: Mapping[str, Setting]) -> None:
    keys: dict[str, str] = {}
    for key, setting in given.items():
        if (other := keys.setdefault(setting.key, key)) != key:
            raise table.error(key, f"says the same as {other}: leave one of them out")


def _parse_single(top: str, values: Mapping[str, object]) -> Strangers | Users:
    told = setting_keys(_SINGLE[top])
    table = _Table(f"[{top}]", values, {key: _Key(each.check.toml, _what(each)) for key, each in told.items()})
    return assembled(_SINGLE[top], {key: _setting(table, key, each) for key, each in told.items() if table.has(key)})


def setting_keys(kind: type[Checked]) -> dict[str, Setting]:
    """The settings of a class by their keys in the file."""
    told = [setting for setting, _ in described(kind) if not setting.quiet]
    return {key: each for each in told for key in (each.file or each.key, each.also) if key}


def _what(setting: Setting) -> str:
    return f"one of {', '.join(setting.check.words)}" if setting.check.words else setting.check.what


def _setting(table: _Table, key: str, setting: Setting) -> object:
    value = table.get(key, None)
    try:
        return setting(setting.check.read(value) if isinstance(value, str) else value)
    except ValueError as error:
        raise table.error(key, error) from error


def _check_settings(table: _Table, settings: AnySettings, *, complete: bool) -> None:
    try:
        if complete:
            settings.check()
        if settings.impair is not None:
            settings.impair = parse_impairment(settings.impair).text
    except (IpcpBootstrapError, UnsupportedError) as error:
        # The text begins with the key that is wrong.
        raise ConfigurationError(f"{table.title} {error}") from error


def _check_together(ipcps: list[IpcpTable]) -> None:
    """Refuse a value that two tables have."""
    names: dict[str, IpcpTable] = {}
    layers: dict[tuple[str, str], IpcpTable] = {}
    for ipcp in ipcps:
        if (other := names.setdefault(ipcp.name, ipcp)) is not ipcp:
            raise ConfigurationError(f"{ipcp.title} has the name of {other.title}; a node has each but once")
        if ipcp.layer and (other := layers.setdefault((ipcp.type, ipcp.layer), ipcp)) is not ipcp:
            raise ConfigurationError(
                f"{ipcp.title} bootstrap: {other.title} is in layer {ipcp.layer!r}; a node is in a layer once"
            )
