"""The configuration file of `irmd`: names, bindings and IPC processes that a node has from the start. Pure.

`parse` turns the text (TOML) into a `Configuration`; each of its entries turns itself into the requests that the `irm`
command would send. The grammar is that of the C prototype (`irm.md` 12.2), with these differences: unknown keys are errors,
names come before IPC processes whatever the order in the file, `autobind = false` binds nothing, and "spillover", the
command's word, is as good as "spill".
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from ouroboros.control.impairment import parse as parse_impairment
from ouroboros.control.irm import IPCP_TYPES
from ouroboros.control.messages import (
    BindProcess,
    BindProgram,
    BootstrapIpcp,
    CreateIpcp,
    CreateName,
    DestroyIpcp,
    IpcpEntry,
    ListIpcps,
    ListNames,
    NameEntry,
    NameSecurity,
    RegisterName,
    Request,
    UdpOptions,
)
from ouroboros.control.names import check_name, check_path
from ouroboros.errors import IpcpBootstrapError, IrmError, OuroborosError, UnsupportedError
from ouroboros.layers.base import DEFAULT_HASH, HASHES
from ouroboros.layers.udp.options import read_options


class ConfigurationError(IrmError):
    """The configuration cannot be used; the text names the table, the key and what is wrong."""


#: Sends a request to the node and gives the value of its answer; raises the exception that the answer names.
Ask = Callable[[Request], Any]
#: The absolute path of a program that is called by its base name, None when there is none such.
Find = Callable[[str], str | None]


class Entry(Protocol):
    """One table of the file."""

    @property
    def title(self) -> str:
        """The table as the file has it, such as `[name.clock]`."""

    def apply(self, ask: Ask, find: Find) -> None:
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
        return f"[name.{_key(self.name)}]"

    def apply(self, ask: Ask, find: Find) -> None:
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


class IpcpTable(msgspec.Struct, frozen=True):
    """`[<type>.<ipcp>]`. `layer` is empty when the IPC process is only created."""

    type: str
    name: str
    layer: str = ""
    hash: str = DEFAULT_HASH
    impair: str | None = None
    bind: tuple[str, ...] = ()
    register: tuple[str, ...] = ()
    udp: UdpOptions | None = None

    @property
    def title(self) -> str:
        return f"[{self.type}.{_key(self.name)}]"

    def apply(self, ask: Ask, find: Find) -> None:
        id = self._bring_up(ask)
        for name in self.bind:
            ask(BindProcess(id, name))
        for name in self.register:
            ask(CreateName(name, "spillover"))
            ask(RegisterName(name, id))

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
            ask(BootstrapIpcp(id, self.layer, self.hash, self.impair, self.udp))
        except OuroborosError:
            if created:
                ask(DestroyIpcp(id))
            raise


class Configuration(msgspec.Struct, frozen=True):
    """All that a file says, in the order in which it is brought about."""

    names: tuple[NameTable, ...] = ()
    ipcps: tuple[IpcpTable, ...] = ()

    def apply(self, ask: Ask, find: Find) -> Iterator[ConfigurationError | None]:
        """Bring the tables about, one for each step; gives the error of a table that failed, naming the table."""
        entries: tuple[Entry, ...] = (*self.names, *self.ipcps)
        for entry in entries:
            try:
                entry.apply(ask, find)
            except OuroborosError as error:
                yield ConfigurationError(f"{entry.title} {error}")
            else:
                yield None


# --- parsing


def parse(text: str) -> Configuration:
    """Read the text of a file. Raises `ConfigurationError` for the first thing in it that is wrong."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"no TOML: {error}") from error
    names: list[NameTable] = []
    ipcps: list[IpcpTable] = []
    for top, tables in document.items():
        _check_top(top, tables)
        for name, table in tables.items():
            if not isinstance(table, dict):
                raise ConfigurationError(f"[{top}] {_key(name)}: a key without a table; write [{top}.<name>] above it")
            if top == "name":
                names.append(_parse_name(_Table(f"[name.{_key(name)}]", table, _NAME_KEYS), name))
            else:
                ipcps.append(_parse_ipcp(top, name, table))
    _check_together(ipcps)
    return Configuration(tuple(names), tuple(ipcps))


def _key(name: str) -> str:
    """A name as TOML writes it."""
    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else msgspec.json.encode(name).decode()


def _check_top(top: str, tables: object) -> None:
    known = ("name", *IPCP_TYPES)
    if top not in known:
        raise ConfigurationError(
            f"[{_key(top)}] unknown table: known are {', '.join(f'[{each}.<name>]' for each in known)}"
        )
    if not isinstance(tables, dict):
        raise ConfigurationError(f"{top}: not a table; write [{top}.<name>]")


class _Key(msgspec.Struct, frozen=True):
    """A key of a table. `built` False: the reference has it, and this version does not."""

    type: Any
    what: str
    built: bool = True


_STRINGS = _Key(list[str], "an array of strings")
_NAME_KEYS = {
    "prog": _STRINGS,
    "args": _STRINGS,
    "lb": _Key(str, '"spill" or "round-robin"'),
} | {
    f"{side}_{kind}_file": _Key(str, "an absolute path")
    for side in ("server", "client")
    for kind in ("enc", "crt", "key")
}
_LAYER = _Key(str, "the name of a layer")
_IMPAIR = _Key(str, 'text as "loss=1%,delay=10ms"')
_UDP_TYPES = ("udp4", "udp6")
_IPCP_KEYS: dict[str, dict[str, _Key]] = {
    "local": {
        "bootstrap": _LAYER,
        "reg": _STRINGS,
        "hash": _Key(str, f"one of {', '.join(HASHES)}"),
        "impair": _IMPAIR,
    },
    "broadcast": {
        "bootstrap": _LAYER,
        "autobind": _Key(bool, "true or false"),
        "enrol": _Key(str, "a name", built=False),
        "conn": _Key(list[str], "an array of strings", built=False),
    },
} | {
    type: {
        "bootstrap": _LAYER,
        "ip": _Key(str, "the address of this host"),
        "port": _Key(int, "a whole number"),
        "dns": _Key(str, "an address"),
        "peers": _Key(list[str], 'an array of strings such as "clock@192.0.2.7"'),
        "reg": _STRINGS,
        "impair": _IMPAIR,
    }
    for type in _UDP_TYPES
}
_POLICIES = {"spill": "spillover", "spillover": "spillover", "round-robin": "round-robin"}


class _Table:
    """The values of one table, checked against its keys."""

    def __init__(self, title: str, values: Mapping[str, object], keys: Mapping[str, _Key]) -> None:
        self.title = title
        self._values = values
        self._keys = keys
        for key in values:
            if key not in keys:
                known = ", ".join(name for name, each in keys.items() if each.built)
                raise self.error(_key(key), f"unknown key; known are {known}")
            if not keys[key].built:
                raise self.error(key, "not built yet; leave it out")

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
    _check_title(f"[name.{_key(name)}]", name, "name")
    policy = _POLICIES[table.choose("lb", "spill", _POLICIES)]
    return NameTable(name, policy, _parse_programs(table), _parse_security(table))


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
    lines: list[str] = table.get("args", [])
    if len(lines) > len(paths):
        raise table.error("args", f"has {len(lines)} entries for {len(paths)} programs in prog")
    if any("\0" in line for line in lines):
        raise table.error("args", "has a null character in it, which no argument can have")
    # Blanks separate arguments, and nothing quotes them. Programs without an entry are not started by the node.
    args = [tuple(line.split()) for line in lines]
    programs = tuple(Program(path, args[i] if i < len(args) else None) for i, path in enumerate(paths))
    base_names = [program.base_name for program in programs]
    for program in programs:
        table.check("prog", program.base_name, "program name")
        if ("/" in program.path and not program.path.startswith("/")) or "\0" in program.path:
            raise table.error("prog", f"{program.path!r} must be an absolute path, or a base name")
        if base_names.count(program.base_name) > 1:
            raise table.error("prog", f"{program.base_name!r} is there twice; programs are known by their base names")
    return programs


def _parse_impairment(table: _Table) -> str:
    try:
        return parse_impairment(table.get("impair", "")).text
    except IpcpBootstrapError as error:
        raise table.error("impair", str(error)) from error


def _parse_ipcp(type: str, name: str, values: Mapping[str, object]) -> IpcpTable:
    title = f"[{type}.{_key(name)}]"
    _check_title(title, name, "name of an IPC process")
    if type not in _IPCP_KEYS:
        built = ", ".join(_IPCP_KEYS)
        raise ConfigurationError(f"{title} IPC processes of type {type} are not built yet; there are {built}")
    if type == "broadcast" and "reg" in values:
        raise ConfigurationError(f"{title} reg: a broadcast layer holds no names; leave it out")
    table = _Table(title, values, _IPCP_KEYS[type])
    layer = table.check("bootstrap", table.get("bootstrap", ""), "layer name") if table.has("bootstrap") else ""
    hash = table.choose("hash", DEFAULT_HASH, HASHES) if type == "local" else DEFAULT_HASH
    impair = _parse_impairment(table) if table.has("impair") else None
    register = table.names("reg") if type != "broadcast" else ()
    udp = _parse_udp(type, table) if type in _UDP_TYPES else None
    if register and not layer:
        raise table.error("reg", "names are registered in a layer; add bootstrap")
    autobind = type == "broadcast" and table.get("autobind", False)
    bind = tuple(dict.fromkeys(each for each in (name, layer) if each)) if autobind else ()
    return IpcpTable(type, name, layer, hash, impair, bind, register, udp)


def _parse_udp(type: str, table: _Table) -> UdpOptions:
    options = UdpOptions(table.get("ip", ""), table.get("port", 3435), table.get("dns", ""), table.get("peers", []))
    try:
        if table.has("bootstrap"):
            read_options(type, options)
    except (IpcpBootstrapError, UnsupportedError) as error:
        # The text begins with the key that is wrong.
        raise ConfigurationError(f"{table.title} {error}") from error
    return options


def _check_together(ipcps: list[IpcpTable]) -> None:
    """What one table may say, but not two."""
    names: dict[str, IpcpTable] = {}
    layers: dict[tuple[str, str], IpcpTable] = {}
    for ipcp in ipcps:
        if (other := names.setdefault(ipcp.name, ipcp)) is not ipcp:
            raise ConfigurationError(f"{ipcp.title} has the name of {other.title}; a node has each but once")
        if ipcp.layer and (other := layers.setdefault((ipcp.type, ipcp.layer), ipcp)) is not ipcp:
            raise ConfigurationError(
                f"{ipcp.title} bootstrap: {other.title} is in layer {ipcp.layer!r}; a node is in a layer once"
            )
