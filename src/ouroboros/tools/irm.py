"""The `irm` command: `irm <object> <verb> [key value]...`.

`parse` turns words into a `Command` by the table `VERBS` and knows no node; the functions of `_RUN` carry commands out.
The grammar is that of the C prototype: keys in any order, and a prefix of an object, verb or key stands for the first
one in the table that begins with it. The exit code is 0 when all was done, 1 when not, 2 for wrong usage.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import msgspec

from ouroboros import __version__, irm
from ouroboros.errors import BindError, IpcpBootstrapError, IpcpCreateError, IrmError, OuroborosError, UnsupportedError
from ouroboros.qos import QoSSpec


class UsageError(Exception):
    """The words are no command; the text says which word is wrong. `help_for`: words whose help fits."""

    def __init__(self, text: str, *help_for: str) -> None:
        super().__init__(text)
        self.help_for = help_for


@dataclass(frozen=True)
class Key:
    """A key of a verb. Without `value` it is a flag; with `words`, the value is one of them or a prefix of one."""

    name: str
    value: str = ""
    required: bool = False
    many: bool = False
    words: tuple[str, ...] = ()
    built: bool = True


@dataclass(frozen=True)
class Verb:
    """One line of the grammar. `operand`: `<it>` must follow the verb, `[it]` may, empty may not."""

    object: str
    name: str
    operand: str
    keys: tuple[Key, ...]
    help: str
    takes_args: bool = False
    built: bool = True


@dataclass(frozen=True)
class Command:
    """A parsed command line. `values`: for each key that was given, its values in order; a flag has none.

    `operand` is empty when none was given, `args` is None without a `--`.
    """

    verb: Verb
    operand: str = ""
    values: dict[str, list[str]] = field(default_factory=dict)
    args: list[str] | None = None
    json: bool = False

    def has(self, key: str) -> bool:
        return key in self.values

    def get(self, key: str) -> str:
        """The first value of the key, or the empty string, which no key can have."""
        return self.values[key][0] if key in self.values else ""


@dataclass(frozen=True)
class Help:
    """The user asked for help on `words`, or for the version."""

    words: tuple[str, ...] = ()
    version: bool = False


_TYPES = tuple(ipcp_type.word for ipcp_type in irm.IpcpType)
_HASHES = tuple(algo.word for algo in irm.DirectoryHashAlgo)
_POLICIES = tuple(policy.word for policy in irm.LoadBalancePolicy)

_NAME = Key("name", "NAME", required=True)
_TYPE = Key("type", "TYPE", words=_TYPES)
_LAYERS_OR_IPCPS = (Key("ipcp", "NAME", many=True), Key("layer", "NAME", many=True))
_UNBUILT_BOOTSTRAP_KEYS = tuple(
    Key(name, "VALUE", built=False)
    for name in (
        *("dev", "ethertype", "ip", "port", "dns", "addr", "eid", "ttl", "addr_auth", "directory"),
        *("dht_alpha", "dht_k", "dht_t_expire", "dht_t_refresh", "dht_t_replicate"),
        *("routing", "ls_t_recalc", "ls_t_update", "ls_t_timeo", "congestion"),
    )
)

#: The grammar. The order decides what a prefix stands for.
VERBS = (
    Verb("ipcp", "create", "", (_NAME, Key("type", "TYPE", True, words=_TYPES)), "create an IPC process"),
    Verb("ipcp", "destroy", "", (_NAME,), "destroy an IPC process"),
    Verb(
        "ipcp",
        "bootstrap",
        "",
        (
            _NAME,
            Key("layer", "NAME", required=True),
            _TYPE,
            Key("hash", "ALGORITHM", words=_HASHES),
            Key("autobind"),
            *_UNBUILT_BOOTSTRAP_KEYS,
        ),
        "start a layer, with an IPC process that is created if there is none and a type is given",
    ),
    Verb("ipcp", "enroll", "", (), "join a layer", built=False),
    Verb("ipcp", "connect", "", (), "connect an IPC process to a neighbour", built=False),
    Verb("ipcp", "disconnect", "", (), "disconnect an IPC process from a neighbour", built=False),
    Verb("ipcp", "list", "", (Key("name", "NAME"), Key("layer", "NAME"), _TYPE), "list IPC processes"),
    Verb("bind", "program", "<program>", (_NAME, Key("auto")), "bind a program to a name", takes_args=True),
    Verb("bind", "process", "<pid>", (_NAME,), "bind a running process to a name"),
    Verb("bind", "ipcp", "<ipcp>", (_NAME,), "bind an IPC process to a name"),
    Verb("unbind", "program", "<program>", (_NAME,), "undo 'bind program'"),
    Verb("unbind", "process", "<pid>", (_NAME,), "undo 'bind process'"),
    Verb("unbind", "ipcp", "<ipcp>", (_NAME,), "undo 'bind ipcp'"),
    Verb("name", "create", "<name>", (Key("lb", "POLICY", words=_POLICIES),), "create a name"),
    Verb("name", "destroy", "<name>", (), "destroy a name with its bindings"),
    Verb("name", "register", "<name>", _LAYERS_OR_IPCPS, "publish a name in layers; * stands for all of them"),
    Verb("name", "unregister", "<name>", _LAYERS_OR_IPCPS, "take a name out of layers; * stands for all of them"),
    Verb("name", "list", "[prefix]", (), "list names"),
    Verb("flow", "list", "", (), "list flows"),
)


# --- parsing


def parse(words: Sequence[str]) -> Command | Help:
    """Turn the words after `irm` into a command; raise `UsageError` naming the word that is wrong."""
    before, args = _split_args(words)
    options = [word for word in before if word.startswith("--") or word == "-h"]
    rest = [word for word in before if word not in options]
    if "--help" in options or "-h" in options:
        return Help(tuple(rest))
    if "--version" in options:
        return Help(version=True)
    for option in options:
        if option != "--json":
            raise UsageError(f"no such option: {option} (known: --json, --help, --version)")
    verb, rest = _parse_verb(rest)
    if not verb.built:
        return Command(verb)
    operand, rest = _parse_operand(verb, rest)
    if args is not None and not verb.takes_args:
        raise UsageError(f"'{verb.object} {verb.name}' takes no arguments after --", verb.object, verb.name)
    if options and verb.name != "list":
        raise UsageError("--json goes with the lists only", verb.object, verb.name)
    return Command(verb, operand, _parse_keys(verb, rest), args, json=bool(options))


def _split_args(words: Sequence[str]) -> tuple[list[str], list[str] | None]:
    if "--" not in words:
        return list(words), None
    cut = words.index("--")
    return list(words[:cut]), list(words[cut + 1 :])


def _parse_object(words: Sequence[str]) -> str:
    objects = dict.fromkeys(verb.object for verb in VERBS)
    if not words:
        raise UsageError(f"nothing asked for: begin with {_either(objects)}")
    object_ = _match(words[0], objects)
    if object_ is None:
        raise UsageError(f"no such object: {words[0]} (known: {', '.join(objects)})")
    return object_


def _parse_verb(words: Sequence[str]) -> tuple[Verb, list[str]]:
    object_ = _parse_object(words)
    verbs = {verb.name: verb for verb in VERBS if verb.object == object_}
    if len(words) < 2:
        raise UsageError(f"nothing asked for: after '{object_}' comes {_either(verbs)}", object_)
    name = _match(words[1], verbs)
    if name is None:
        raise UsageError(f"'{object_}' has no verb {words[1]} (known: {', '.join(verbs)})", object_)
    return verbs[name], list(words[2:])


def _parse_operand(verb: Verb, words: list[str]) -> tuple[str, list[str]]:
    if verb.operand and words:
        return words[0], words[1:]
    if verb.operand.startswith("<"):
        raise UsageError(f"'{verb.object} {verb.name}' needs a {verb.operand}", verb.object, verb.name)
    return "", words


def _parse_keys(verb: Verb, words: list[str]) -> dict[str, list[str]]:
    here = verb.object, verb.name
    keys = {key.name: key for key in verb.keys}
    values: dict[str, list[str]] = {}
    rest = iter(words)
    for word in rest:
        name = _match(word, keys)
        if name is None:
            known = ", ".join(key.name for key in verb.keys if key.built)
            raise UsageError(f"no such key: {word} (known: {known or 'none'})", *here)
        if name in values and not keys[name].many:
            raise UsageError(f"key '{name}' is given twice", *here)
        given = values.setdefault(name, [])
        if keys[name].value:
            given.append(_parse_value(verb, keys[name], next(rest, None)))
    for key in verb.keys:
        if key.required and key.name not in values:
            raise UsageError(f"key '{key.name}' is missing", *here)
    return values


def _parse_value(verb: Verb, key: Key, word: str | None) -> str:
    if not word:
        raise UsageError(f"key '{key.name}' needs a value", verb.object, verb.name)
    if not key.words:
        return word
    value = _match(word, key.words)
    if value is None:
        raise UsageError(f"key '{key.name}' cannot be {word}: say {_either(key.words)}", verb.object, verb.name)
    return value


def _match(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` is, or the first that it begins; upper and lower case are the same."""
    folded = {name.lower(): name for name in known}
    if word.lower() in folded:
        return folded[word.lower()]
    return next((name for low, name in folded.items() if word and low.startswith(word.lower())), None)


def _either(words: Iterable[str]) -> str:
    *most, last = [*words] or [""]
    return f"{', '.join(most)} or {last}" if most else last


# --- help


def usage(verb: Verb) -> str:
    """The verb with its operand and keys, on one line."""
    parts = ["irm", verb.object, verb.name, verb.operand]
    parts += [_key_usage(key) for key in verb.keys if key.built]
    parts += ["[-- ARGUMENTS...]"] if verb.takes_args else []
    parts += ["[--json]"] if verb.name == "list" else []
    return " ".join(part for part in parts if part)


def _key_usage(key: Key) -> str:
    text = f"{key.name} {key.value}".strip()
    return (text if key.required else f"[{text}]") + ("..." if key.many else "")


def help_text(words: Sequence[str]) -> str:
    """Help for everything, for an object, or for an object and a verb; raise `UsageError` when there is none such."""
    if not words:
        return "\n".join(["Manage an Ouroboros node.", "", *_usage_lines(VERBS), "", _HELP_NOTES])
    if len(words) == 1:
        object_ = _parse_object(words)
        return "\n".join(_usage_lines(verb for verb in VERBS if verb.object == object_))
    verb, _ = _parse_verb(words)
    choices = [f"    {key.name}: {_either(key.words)}" for key in verb.keys if key.words]
    return "\n".join([*_usage_lines([verb]), *choices])


def _usage_lines(verbs: Iterable[Verb]) -> list[str]:
    return [f"{usage(verb)}\n    {verb.help}{'' if verb.built else ' (not built yet)'}" for verb in verbs]


_HELP_NOTES = """\
Keys go in any order; objects, verbs and keys can be cut short: irm i l is irm ipcp list.
--json prints a list with all its fields. --version prints the version. irm <object> [<verb>] --help says more."""


# --- listings


def table(columns: Sequence[tuple[str, int]], rows: Sequence[Sequence[str]]) -> str:
    """A framed table, cells to the right. `columns`: title and least width; a longer cell widens its column."""
    widths = [max([least, *(len(row[i]) for row in rows)]) for i, (_, least) in enumerate(columns)]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    lines = [_row(cells, widths) for cells in ([title for title, _ in columns], *rows)]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def ipcp_table(ipcps: Sequence[irm.IpcpInfo]) -> str:
    rows = [(str(ipcp.pid), ipcp.name, ipcp.type.word, ipcp.layer or "Not enrolled.") for ipcp in ipcps]
    return table([("pid", 7), ("name", 20), ("type", 10), ("layer", 20)], rows)


def name_table(names: Sequence[irm.NameInfo]) -> str:
    return table([("name", 50), ("load-balance policy", 20)], [(name.name, name.pol_lb.word) for name in names])


def flow_table(flows: Sequence[irm.FlowInfo]) -> str:
    columns = [("flow", 7), ("name", 30), ("allocator", 9), ("acceptor", 9), ("qos", 20)]
    return table(columns, [(str(f.flow_id), f.name, *(_pid(pid) for pid in f.pids), qos_words(f.qos)) for f in flows])


def _pid(pid: int) -> str:
    return str(pid) if pid else "node"


def qos_words(qos: QoSSpec) -> str:
    """What the spec asks for beyond the defaults, or `raw` when that is nothing."""
    plain = QoSSpec()
    fields = msgspec.structs.asdict(qos).items()
    return " ".join(f"{name}={value}" for name, value in fields if value != getattr(plain, name)) or "raw"


def json_text(entries: Sequence[msgspec.Struct]) -> str:
    """The entries with all their fields; enums as the words of the grammar."""
    return msgspec.json.format(msgspec.json.encode([_plain(entry) for entry in entries])).decode()


def _plain(value: object) -> object:
    if isinstance(value, msgspec.Struct):
        return {name: _plain(item) for name, item in msgspec.structs.asdict(value).items()}
    if isinstance(value, IntEnum):
        return getattr(value, "word", value.name)
    return value


# --- running


def run(command: Command) -> None:
    """Carry the command out on the running node; raise `OuroborosError` when something asked for was not done."""
    verb = command.verb
    if not verb.built:
        raise UnsupportedError(f"'irm {verb.object} {verb.name}' is not built yet in version {__version__}")
    _RUN[verb.object, verb.name](command)


def _ipcp_create(command: Command) -> None:
    irm.create_ipcp(command.get("name"), _type(command.get("type")))


def _ipcp_destroy(command: Command) -> None:
    irm.destroy_ipcp(_find_ipcp(command.get("name"), IpcpCreateError).pid)


def _ipcp_bootstrap(command: Command) -> None:
    name = command.get("name")
    known = [ipcp for ipcp in irm.list_ipcps() if ipcp.name == name]
    if not known and not command.has("type"):
        raise IpcpBootstrapError(f"there is no IPC process {name!r}: add 'type TYPE' to create it")
    ipcp_type = _type(command.get("type")) if command.has("type") else known[0].type
    if not known:
        _create_and_bootstrap(command, ipcp_type)
        return
    waiting = [ipcp.pid for ipcp in known if ipcp.type is ipcp_type and not ipcp.layer]
    if not waiting:
        told = " and ".join(f"{ipcp.type.word}, {f'in layer {ipcp.layer}' if ipcp.layer else 'idle'}" for ipcp in known)
        raise IpcpBootstrapError(f"IPC process {name!r} is {told}: choose another name, or destroy it first")
    _bootstrap(command, waiting[0], ipcp_type)


def _create_and_bootstrap(command: Command, ipcp_type: irm.IpcpType) -> None:
    pid = irm.create_ipcp(command.get("name"), ipcp_type)
    try:
        _bootstrap(command, pid, ipcp_type)
    except OuroborosError:
        irm.destroy_ipcp(pid)
        raise


def _bootstrap(command: Command, pid: int, ipcp_type: irm.IpcpType) -> None:
    _refuse_foreign_keys(command, ipcp_type)
    hash_ = irm.DirectoryHashAlgo[command.get("hash")] if command.has("hash") else irm.DirectoryHashAlgo.SHA3_256
    irm.bootstrap_ipcp(pid, irm.IpcpConfig(ipcp_type, command.get("layer"), hash_))
    _autobind(command, pid, ipcp_type)


def _refuse_foreign_keys(command: Command, ipcp_type: irm.IpcpType) -> None:
    foreign = [key.name for key in command.verb.keys if not key.built and command.has(key.name)]
    if foreign:
        raise IpcpBootstrapError(f"key '{foreign[0]}' means nothing for type {ipcp_type.word}: leave it out")


def _autobind(command: Command, pid: int, ipcp_type: irm.IpcpType) -> None:
    if not command.has("autobind"):
        return
    if ipcp_type not in (irm.IpcpType.UNICAST, irm.IpcpType.BROADCAST):
        print(f"irm: autobind ignored: nobody enrolls with an IPC process of type {ipcp_type.word}", file=sys.stderr)
        return
    for name in dict.fromkeys((command.get("name"), command.get("layer"))):
        irm.bind_process(pid, name)


def _ipcp_list(command: Command) -> None:
    name, layer, word = command.get("name"), command.get("layer"), command.get("type")
    ipcps = [
        ipcp
        for ipcp in irm.list_ipcps()
        if name in ("", ipcp.name) and layer in ("", ipcp.layer) and word in ("", ipcp.type.word)
    ]
    _print_list(command, ipcps, ipcp_table, "IPCPs", filtered=bool(command.values))


def _name_create(command: Command) -> None:
    policies = {policy.word: policy for policy in irm.LoadBalancePolicy}
    irm.create_name(irm.NameInfo(command.operand, policies[command.get("lb") or "round-robin"]))


def _name_destroy(command: Command) -> None:
    irm.destroy_name(command.operand)


def _name_register(command: Command) -> None:
    pids = _chosen_ipcps(command)
    irm.create_name(irm.NameInfo(command.operand, irm.LoadBalancePolicy.SPILL))  # no effect on one that exists
    for pid in pids:
        irm.reg_name(command.operand, pid)


def _name_unregister(command: Command) -> None:
    for pid in _chosen_ipcps(command):
        irm.unreg_name(command.operand, pid)


def _chosen_ipcps(command: Command) -> list[int]:
    """Pids of the IPC processes that the keys `ipcp` and `layer` name, each once; every value must name one."""
    if not command.values:
        raise UsageError("say where: ipcp NAME, layer NAME, or both", command.verb.object, command.verb.name)
    ipcps = [ipcp for ipcp in irm.list_ipcps() if ipcp.layer]
    chosen: dict[int, None] = {}
    for key, values in command.values.items():
        for value in values:
            found = [ipcp for ipcp in ipcps if _answers_to(ipcp, key, value)]
            if not found:
                what = "IPC process in a layer" if key == "ipcp" else "layer"
                raise irm.NameError(f"there is no {what} called {value!r}: see 'irm ipcp list'")
            chosen.update(dict.fromkeys(ipcp.pid for ipcp in found))
    return list(chosen)


def _answers_to(ipcp: irm.IpcpInfo, key: str, value: str) -> bool:
    if value == "*":
        return ipcp.type is not irm.IpcpType.BROADCAST  # whoever names one is told that names cannot be in it
    return value == (ipcp.name if key == "ipcp" else ipcp.layer)


def _name_list(command: Command) -> None:
    names = [name for name in irm.list_names() if name.name.startswith(command.operand)]
    _print_list(command, names, name_table, "names", filtered=bool(command.operand))


def _flow_list(command: Command) -> None:
    _print_list(command, irm.list_flows(), flow_table, "flows", filtered=False)


def _bind_program(command: Command) -> None:
    opts = irm.BIND_AUTO if command.has("auto") else 0
    irm.bind_program(command.operand, command.get("name"), opts, command.args)


def _bind_process(command: Command) -> None:
    irm.bind_process(_process(command), command.get("name"))


def _bind_ipcp(command: Command) -> None:
    irm.bind_process(_find_ipcp(command.operand, BindError).pid, command.get("name"))


def _unbind_program(command: Command) -> None:
    irm.unbind_program(command.operand, command.get("name"))


def _unbind_process(command: Command) -> None:
    irm.unbind_process(_process(command), command.get("name"))


def _unbind_ipcp(command: Command) -> None:
    irm.unbind_process(_find_ipcp(command.operand, BindError).pid, command.get("name"))


def _process(command: Command) -> int:
    word = command.operand
    if not (word.isascii() and word.isdigit()):
        raise UsageError(f"{word!r} is no process id: give a number", command.verb.object, command.verb.name)
    return int(word)


def _find_ipcp(name: str, error: type[IrmError]) -> irm.IpcpInfo:
    for ipcp in irm.list_ipcps():
        if ipcp.name == name:
            return ipcp
    raise error(f"there is no IPC process {name!r}: see 'irm ipcp list'")


def _type(word: str) -> irm.IpcpType:
    return next(ipcp_type for ipcp_type in irm.IpcpType if ipcp_type.word == word)


def _print_list(
    command: Command, entries: Sequence[Any], show: Callable[[Sequence[Any]], str], what: str, *, filtered: bool
) -> None:
    if not entries and filtered:
        raise IrmError(f"none of the {what} match: 'irm {command.verb.object} list' shows all")
    if command.json:
        print(json_text(entries))
    else:
        print(show(entries) if entries else f"No {what} in system.", end="\n\n")


_RUN: dict[tuple[str, str], Callable[[Command], None]] = {
    ("ipcp", "create"): _ipcp_create,
    ("ipcp", "destroy"): _ipcp_destroy,
    ("ipcp", "bootstrap"): _ipcp_bootstrap,
    ("ipcp", "list"): _ipcp_list,
    ("bind", "program"): _bind_program,
    ("bind", "process"): _bind_process,
    ("bind", "ipcp"): _bind_ipcp,
    ("unbind", "program"): _unbind_program,
    ("unbind", "process"): _unbind_process,
    ("unbind", "ipcp"): _unbind_ipcp,
    ("name", "create"): _name_create,
    ("name", "destroy"): _name_destroy,
    ("name", "register"): _name_register,
    ("name", "unregister"): _name_unregister,
    ("name", "list"): _name_list,
    ("flow", "list"): _flow_list,
}


def irm_main(words: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        command = parse(words)
        if isinstance(command, Help):
            print(f"irm {__version__}" if command.version else help_text(command.words))
            return 0
        with irm.running_node_only():
            run(command)
    except UsageError as error:
        hint = " ".join(["irm", *error.help_for, "--help"])
        print(f"irm: {error}\nTry '{hint}'.", file=sys.stderr)
        return 2
    except OuroborosError as error:
        print(f"irm: {error}", file=sys.stderr)
        return 1
    return 0


def main() -> None:
    """Entry point of the `irm` command."""
    sys.exit(irm_main(sys.argv[1:]))


if __name__ == "__main__":
    main()
