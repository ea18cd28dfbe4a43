"""The `irm` command: `irm <object> <verb> [key value]...`.

`irm_grammar` turns words into a `Command`; the functions of `_RUN` carry it out, most of them by a call of `ouroboros.cli`.
The exit code is 0 when all was done, 1 when not, 2 for wrong usage.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ouroboros import __version__, cli, irm
from ouroboros.errors import IrmError, OuroborosError
from ouroboros.qos import NAMED_SPECS
from ouroboros.tools.irm_grammar import Command, Help, UsageError, parse
from ouroboros.tools.irm_help import completion_script, help_text
from ouroboros.tools.irm_listing import flow_table, ipcp_table, json_text, name_table
from ouroboros.tools.irm_settings import settings


def run(command: Command) -> None:
    """Carry the command out on the running node; raise `OuroborosError` when something asked for was not done."""
    _RUN[command.verb.object, command.verb.name](command)


def _ipcp_create(command: Command) -> None:
    cli.create_ipcp(command.get("name"), _type(command.get("type")))


def _ipcp_destroy(command: Command) -> None:
    cli.destroy_ipcp(command.get("name"))


def _ipcp_bootstrap(command: Command) -> None:
    name = command.get("name")
    if command.has("type"):
        # Before the node is asked for anything: wrong usage is wrong usage without a node, too.
        conf = settings(command, _type(command.get("type")))
    else:
        conf = settings(command, _type_of_existing(name))
    autobind = command.has("autobind")
    if autobind and conf.ipcp_type not in cli.AUTOBIND_TYPES:
        _note(f"autobind ignored: nobody enrolls with an IPC process of type {conf.ipcp_type.word}")
    if command.has("type"):
        cli.autoboot(name, conf.ipcp_type, conf.layer_name, conf, autobind=autobind)
    else:
        cli.bootstrap_ipcp(name, conf, autobind)


def _ipcp_impair(command: Command) -> None:
    cli.impair_ipcp(command.get("name"), command.get("impair"))


def _ipcp_peer(command: Command) -> None:
    add, remove = command.values.get("add", []), command.values.get("del", [])
    if not add and not remove:
        raise UsageError(
            "say what: add NAME@ADDRESS, del NAME@ADDRESS, or both", command.verb.object, command.verb.name
        )
    cli.change_peers(command.get("name"), add, remove)


def _type_of_existing(name: str) -> irm.IpcpType:
    try:
        return cli.find_ipcp(name).type
    except cli.NoMatchError as error:
        raise cli.NoMatchError(f"there is no IPC process {name!r}: add 'type TYPE' to create it") from error


def _ipcp_enroll(command: Command) -> None:
    name, layer, dst = command.get("name"), command.get("layer") or None, command.get("dst") or command.get("layer")
    if not dst:
        raise UsageError("say with whom: layer NAME, dst NAME, or both", command.verb.object, command.verb.name)
    ipcp_type = _type(command.get("type")) if command.has("type") else None
    if ipcp_type is None and not cli.list_ipcps(name=name):
        ipcp_type = irm.IpcpType.UNICAST
    cli.enroll_ipcp(name, dst, command.has("autobind"), ipcp_type=ipcp_type, layer=layer)


def _ipcp_connect(command: Command) -> None:
    qos = NAMED_SPECS[command.get("qos") or "raw"]
    cli.connect_ipcp(command.get("name"), command.get("dst"), command.get("component") or "*", qos)


def _ipcp_disconnect(command: Command) -> None:
    cli.disconnect_ipcp(command.get("name"), command.get("dst"), command.get("component") or "*")


def _ipcp_list(command: Command) -> None:
    ipcp_type = _type(command.get("type")) if command.has("type") else None
    ipcps = cli.list_ipcps(command.get("name") or None, command.get("layer") or None, ipcp_type)
    _print_list(command, ipcps, ipcp_table, "IPCPs", filtered=bool(command.values))


def _name_create(command: Command) -> None:
    policies = {policy.word: policy for policy in irm.LoadBalancePolicy}
    server, client = (
        irm.NameSecPaths(*(command.get(f"{side}{file}path") for file in ("enc", "key", "crt"))) for side in ("s", "c")
    )
    irm.create_name(irm.NameInfo(command.operand, policies[command.get("lb") or "round-robin"], server, client))


def _name_destroy(command: Command) -> None:
    cli.destroy_name(command.operand)


def _name_register(command: Command) -> None:
    # The C prototype's command gives new names this policy, its library the other one.
    cli.reg_name(command.operand, **_places(command), pol_lb=irm.LoadBalancePolicy.SPILL)


def _name_unregister(command: Command) -> None:
    cli.unreg_name(command.operand, **_places(command))


def _places(command: Command) -> dict[str, Any]:
    if not command.values:
        raise UsageError("say where: ipcp NAME, layer NAME, or both", command.verb.object, command.verb.name)
    return {"ipcps": command.values.get("ipcp"), "layers": command.values.get("layer")}


def _name_list(command: Command) -> None:
    names = [info for info in cli.list_names() if info.name.startswith(command.operand)]
    _print_list(command, names, name_table, "names", filtered=bool(command.operand))


def _flow_list(command: Command) -> None:
    _print_list(command, irm.list_flows(), flow_table, "flows", filtered=False)


def _bind_program(command: Command) -> None:
    opts = irm.BIND_AUTO if command.has("auto") else 0
    cli.bind_program(command.operand, command.get("name"), opts, command.args)


def _bind_process(command: Command) -> None:
    cli.bind_process(_process(command), command.get("name"))


def _bind_ipcp(command: Command) -> None:
    cli.bind_ipcp(command.operand, command.get("name"))


def _unbind_program(command: Command) -> None:
    cli.unbind_program(command.operand, command.get("name"))


def _unbind_process(command: Command) -> None:
    cli.unbind_process(_process(command), command.get("name"))


def _unbind_ipcp(command: Command) -> None:
    cli.unbind_ipcp(command.operand, command.get("name"))


def _process(command: Command) -> int:
    word = command.operand
    if not (word.isascii() and word.isdigit()):
        raise UsageError(f"{word!r} is no process id: give a number", command.verb.object, command.verb.name)
    return int(word)


def _completion(command: Command) -> None:
    print(completion_script(command.verb.name), end="")


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


def _note(text: str) -> None:
    print(f"irm: {text}", file=sys.stderr)


_RUN: dict[tuple[str, str], Callable[[Command], None]] = {
    ("ipcp", "create"): _ipcp_create,
    ("ipcp", "destroy"): _ipcp_destroy,
    ("ipcp", "bootstrap"): _ipcp_bootstrap,
    ("ipcp", "impair"): _ipcp_impair,
    ("ipcp", "peer"): _ipcp_peer,
    ("ipcp", "enroll"): _ipcp_enroll,
    ("ipcp", "connect"): _ipcp_connect,
    ("ipcp", "disconnect"): _ipcp_disconnect,
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
    ("completion", "bash"): _completion,
    ("completion", "zsh"): _completion,
    ("completion", "fish"): _completion,
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
    except (OuroborosError, ValueError) as error:  # ValueError: a path that is too long
        print(f"irm: {error}", file=sys.stderr)
        return 1
    return 0


def main() -> None:
    """Entry point of the `irm` command."""
    try:
        code = irm_main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads the output has seen enough, as `head` has. The interpreter must not try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


if __name__ == "__main__":
    main()
