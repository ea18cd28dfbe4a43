"""The configuration file of `irmd`, written: what a node has, as `configuration.parse` reads it back. Pure.

What a file does not have is said in comments: connections of one component only, and QoS without a name. Bindings of single
processes end with those, and are left out. Files that protect flows are named by their paths; nothing secret is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ouroboros._checks import Setting, WordEnum, described, told
from ouroboros.control.configuration import (
    COMPONENTS,
    NETWORKED,
    Configuration,
    IpcpTable,
    NameTable,
    Program,
    ShareTable,
    bare_key,
    is_spelled,
)
from ouroboros.control.names import Name, Registry
from ouroboros.control.shares import Shares
from ouroboros.layers.base import Ipcp
from ouroboros.layers.face import Connected
from ouroboros.qos import NAMED_SPECS, QOS_RAW, QoSSpec
from ouroboros.settings import Strangers, TypeSettings, Users
from ouroboros.wire.control import NameSecurity

# --- what there is

#: TOML keeps the tables of a type together. Those of types that are not here come first: others lie over them.
_ORDER = {"unicast": 1, "broadcast": 2}


def configuration_of(
    registry: Registry, ipcps: Iterable[Ipcp], shares: Shares, strangers: Strangers, users: Users
) -> tuple[Configuration, list[str]]:
    """All that a file can say of a node, and what it cannot say, line by line. IPC processes that were made for programs
    that join a layer go with those."""
    members = sorted(
        (ipcp for ipcp in ipcps if not ipcp.on_demand), key=lambda ipcp: (_ORDER.get(ipcp.type, 0), ipcp.id)
    )
    notes: list[str] = []
    names = tuple(_name_table(name) for name in registry.names.values() if _is_kept(name, members))
    tables = _ipcp_tables(registry, members, notes)
    changed = tuple(ShareTable(kind, user, users) for kind, (user, users) in shares.changed.items())
    return Configuration(names, tuple(tables), changed, strangers, users), notes


def _is_kept(name: Name, members: Sequence[Ipcp]) -> bool:
    """A name that came with a process goes with it, unless something else is known of it."""
    known = (each for each in members if each.registers and each.layer and each.query(each.digest(name.text)))
    bound = any(name.text in each.names for each in members)
    return name.lasting or bool(name.programs) or bound or next(known, None) is not None


def _name_table(name: Name) -> NameTable:
    programs = [
        Program(each.path, tuple(each.args) if each.auto else None)
        # In the file, those that the node starts come first.
        for each in sorted(name.programs.values(), key=lambda each: not each.auto)
    ]
    return NameTable(name.text, name.policy, tuple(programs), name.security)


def _ipcp_tables(registry: Registry, members: Sequence[Ipcp], notes: list[str]) -> Iterator[IpcpTable]:
    registered = {each.id: _registered(registry, each) for each in members}
    autobound = [each for each in members if _is_autobound(each, members, registered)]
    #: By IPC process: the names that are registered there because others are bound to them.
    implied: dict[int, set[str]] = {each.id: set() for each in members}
    for member in autobound:
        for other in _below(member, members):
            implied[other.id] |= {member.name, member.layer}
    for member in members:
        yield _ipcp_table(member, member in autobound, registered[member.id], implied[member.id], notes)


def _registered(registry: Registry, member: Ipcp) -> list[str]:
    if not (member.registers and member.layer):
        return []
    return [text for text in registry.names if member.query(member.digest(text))]


def _below(member: Ipcp, members: Sequence[Ipcp]) -> list[Ipcp]:
    """The IPC processes by which a member may be reached that others know by name: those of the file when its turn comes."""
    if member.type not in NETWORKED:
        return []
    return [each for each in members if each.type != "broadcast" and each.layer not in ("", member.layer)]


def _is_autobound(member: Ipcp, members: Sequence[Ipcp], registered: Mapping[int, list[str]]) -> bool:
    """Whether `autobind` says what it is bound to, and where it is registered. One that begins a layer is made known where
    the node is by then."""
    names = {member.name, member.layer}
    if member.type not in NETWORKED or not member.layer or not names <= set(member.names):
        return False
    below = _below(member, members)
    before = members[: members.index(member)]
    if not member.enrolled_with and any(each not in before or each.enrolled_with for each in below):
        return False
    return all(names <= set(registered[each.id]) for each in below)


def _ipcp_table(member: Ipcp, autobind: bool, registered: list[str], implied: set[str], notes: list[str]) -> IpcpTable:
    settings = member.settings()
    if member.layer and not member.enrolled_with:
        settings = _settings_now(member)
    neighbours, qualities, over = _neighbours(member, notes)
    bound = [text for text in member.names if not (autobind and text in (member.name, member.layer))]
    return IpcpTable(
        type=member.type,
        name=member.name,
        layer="" if member.enrolled_with else member.layer,
        settings=settings,  # type: ignore[arg-type]
        autobind=autobind,
        register=tuple(text for text in registered if text not in implied),
        enrol=member.enrolled_with,
        neighbours=neighbours,
        bind=tuple(bound),
        qualities=qualities,
        keepalive=member.keepalive,
        over=over,
    )


def _settings_now(member: Ipcp) -> TypeSettings:
    """What it would be told at a bootstrap; what a type has no use for is left out."""
    now = member.settings_now()
    return type(now)(**dict(_used(now)))


def _used(settings: TypeSettings) -> Iterator[tuple[str, Any]]:
    for field, check in settings.checks.items():
        if not (isinstance(check, Setting) and check.quiet):
            yield field, getattr(settings, field)


def _neighbours(member: Ipcp, notes: list[str]) -> tuple[tuple[str, ...], dict[str, str], dict[str, tuple[str, ...]]]:
    """To whom it stays connected, the QoS of data transfer where that is not raw, and over which layers where that was
    said."""
    wanted: dict[str, list[Connected]] = {}
    for each in member.connected():
        wanted.setdefault(each.name, []).append(each)
    qualities: dict[str, str] = {}
    for name, connections in wanted.items():
        there = {each.component: each.qos for each in connections}
        missing = [component for component in NETWORKED[member.type] if component not in there]
        if missing:
            notes.append(f"{member.name!r} is connected to {name!r}, but not by {missing[0]}; a file connects both")
        word = _quality(there.get(COMPONENTS[1], QOS_RAW))
        if word is None:
            notes.append(f"{member.name!r} is connected to {name!r} with a QoS that has no name; in the file it is raw")
        elif word != "raw":
            qualities[name] = word
    over = {name: tuple(dict.fromkeys(each.over for each in all if each.over)) for name, all in wanted.items()}
    return tuple(wanted), qualities, {name: layers for name, layers in over.items() if layers}


def _quality(qos: QoSSpec) -> str | None:
    return next((word for word, spec in NAMED_SPECS.items() if spec == qos), None)


# --- how it is written


def text_of(said: Configuration, notes: Iterable[str] = ()) -> str:
    """The text of the file. `notes`: lines of comments at its head."""
    tables = [
        *([_table("[strangers]", _settings(said.strangers))] if said.strangers != Strangers() else []),
        *([_table("[users]", _settings(said.users))] if said.users != Users() else []),
        *(_table(f"[share.{share.kind}]", {"user": share.user, "users": share.users}) for share in said.shares),
        *(_table(name.title, _name_values(name)) for name in said.names),
        *(_table(ipcp.title, _ipcp_values(ipcp)) for ipcp in said.ipcps),
    ]
    head = "".join(f"# {_on_one_line(note)}\n" for note in notes)
    return "\n".join([head, *tables] if head else tables)


def _on_one_line(note: str) -> str:
    return "".join(each if each.isprintable() else " " for each in note)


def _table(title: str, values: Mapping[str, Any]) -> str:
    lines = (f"{key} = {_value(value)}\n" for key, value in values.items() if value is not None)
    return "".join([f"{title}\n", *lines])


def _value(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{bare_key(key)} = {_value(each)}" for key, each in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    # JSON has nothing that TOML has not, but for this character.
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007F")


def _name_values(name: NameTable) -> dict[str, Any]:
    args = [program.args for program in name.programs if program.args is not None]
    values: dict[str, Any] = {
        "lb": None if name.policy == "spillover" else name.policy,
        "prog": [program.path for program in name.programs] or None,
        "args": [" ".join(each) if is_spelled(each) else each for each in args] or None,
    }
    return values | _security_values(name.security or NameSecurity())


def _security_values(security: NameSecurity) -> dict[str, str | None]:
    paths = msgspec.structs.asdict(security)
    shorter = {"encryption": "enc", "certificate": "crt", "key": "key"}
    return {
        f"{side}_{short}_file": paths[f"{side}_{long}"]
        for side in ("server", "client")
        for long, short in shorter.items()
    }


def _ipcp_values(ipcp: IpcpTable) -> dict[str, Any]:
    own = ipcp.neighbours == (ipcp.enrol,)
    return {
        "bootstrap": ipcp.layer or None,
        "enrol": ipcp.enrol or None,
        "any": None if ipcp.offered is None else ipcp.offered.layer or True,
        "any_over": (ipcp.offered and ipcp.offered.over) or None,
        **_settings(ipcp.settings),
        "autobind": ipcp.autobind or None,
        "bind": ipcp.bind or None,
        "connect": None if ipcp.connects else False,
        "conn": None if own or not ipcp.neighbours else ipcp.neighbours,
        "conn_qos": ipcp.qualities or None,
        "conn_over": ipcp.over or None,
        "keepalive": ipcp.keepalive,
        "reg": ipcp.register or None,
    }


def _settings(settings: Any) -> dict[str, Any]:  # noqa: ANN401
    """The settings that are not as usual, by their keys in the file."""
    values: dict[str, Any] = {}
    usual = {setting.key: default for setting, default in described(type(settings))}
    for setting, value in told(settings):
        if not setting.quiet and value != usual[setting.key]:
            values[setting.file or setting.key] = value.word if isinstance(value, WordEnum) else value
    return values
