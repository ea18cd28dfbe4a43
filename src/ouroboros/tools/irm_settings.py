"""From the keys of `irm ipcp bootstrap` to the configuration of an IPC process. Pure."""

from __future__ import annotations

from typing import TypeVar

from ouroboros._checks import assembled, described
from ouroboros.irm import IpcpConfig, IpcpType
from ouroboros.settings import TYPES, TypeSettings
from ouroboros.tools.irm_grammar import Command, UsageError

_T = TypeVar("_T", bound=TypeSettings)


def settings(command: Command, ipcp_type: IpcpType) -> IpcpConfig:
    """The configuration that an `ipcp bootstrap` asks for; raise `UsageError` naming a key that does not fit the type."""
    told = type_settings(command, TYPES[ipcp_type.word])
    fields = {field: getattr(told, field) for field in told.__struct_fields__}
    return IpcpConfig(ipcp_type, command.get("layer"), **fields)


def type_settings(command: Command, kind: type[_T]) -> _T:
    """What the command says to an IPC process of that type; raises as `settings`."""
    for setting, _ in described(kind):
        if setting.required and not command.has(setting.key):
            raise _error(command, f"key '{setting.key}' is missing: type {kind.word()} needs it")
    values = {}
    for key in command.verb.keys:
        if not key.settings or not command.has(key.name):
            continue
        if kind.word() not in key.settings:
            raise _error(command, f"key '{key.name}' means nothing for type {kind.word()}: leave it out")
        try:
            values[key.name] = key.settings[kind.word()].value(command.values[key.name])
        except ValueError as error:
            raise _error(command, f"key '{key.name}' {error}") from None
    return assembled(kind, values)


def _error(command: Command, text: str) -> UsageError:
    return UsageError(text, command.verb.object, command.verb.name)
