"""From the keys of `irm ipcp bootstrap` to the configuration of an IPC process. Pure."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ouroboros.irm import (
    DhtConfig,
    DirConfig,
    DirectoryHashAlgo,
    DtConfig,
    EthConfig,
    IpcpConfig,
    IpcpType,
    LinkStateConfig,
    RoutingConfig,
    Udp4Config,
    Udp6Config,
    UnicastConfig,
)
from ouroboros.tools.irm_grammar import Command, UsageError

#: The one thing that nobody can guess, by type.
_REQUIRED = {IpcpType.ETH_LLC: "dev", IpcpType.ETH_DIX: "dev", IpcpType.UDP4: "ip", IpcpType.UDP6: "ip"}

_Values = dict[type[Any], dict[str, Any]]


def settings(command: Command, ipcp_type: IpcpType) -> IpcpConfig:
    """The configuration that an `ipcp bootstrap` asks for; raise `UsageError` naming a key that does not fit the type."""
    needed = _REQUIRED.get(ipcp_type)
    if needed is not None and not command.has(needed):
        raise _error(command, f"key '{needed}' is missing: type {ipcp_type.word} needs it")
    values = _values(command, ipcp_type)
    conf = IpcpConfig(ipcp_type, command.get("layer"))
    if command.has("hash"):
        conf.dir_hash_algo = DirectoryHashAlgo[command.get("hash")]
    if command.has("impair"):
        conf.impair = command.get("impair")
    match ipcp_type:
        case IpcpType.UNICAST:
            conf.unicast = _unicast(values)
        case IpcpType.ETH_LLC | IpcpType.ETH_DIX:
            conf.eth = EthConfig(**values[EthConfig])
        case IpcpType.UDP4:
            conf.udp4 = Udp4Config(**values[Udp4Config])
        case IpcpType.UDP6:
            conf.udp6 = Udp6Config(**values[Udp6Config])
    return conf


def _values(command: Command, ipcp_type: IpcpType) -> _Values:
    """The settings that were given, by the class that they belong to."""
    values: _Values = defaultdict(dict)
    for key in command.verb.keys:
        if key.setting is None or not command.has(key.name):
            continue
        if ipcp_type not in key.setting.kinds:
            raise _error(command, f"key '{key.name}' means nothing for type {ipcp_type.word}: leave it out")
        try:
            value = key.setting.value(command.values[key.name], ipcp_type)
        except ValueError as error:
            raise _error(command, f"key '{key.name}' {error}") from None
        values[key.setting.kinds[ipcp_type]][key.setting.field] = value
    return values


def _unicast(values: _Values) -> UnicastConfig:
    routing = RoutingConfig(ls=LinkStateConfig(**values[LinkStateConfig]))
    directory = DirConfig(dht=DhtConfig(**values[DhtConfig]), **values[DirConfig])
    return UnicastConfig(dt=DtConfig(routing=routing, **values[DtConfig]), dir=directory, **values[UnicastConfig])


def _error(command: Command, text: str) -> UsageError:
    return UsageError(text, command.verb.object, command.verb.name)
