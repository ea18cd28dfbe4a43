"""The `irm` command: `irm <object> <verb> [key value]...`.

`irm_grammar` turns words into a `Command`; the functions of `_RUN` carry it out, most of them by a call of `ouroboros.cli`.
The exit code is 0 when all was done, 1 when not, 2 for wrong usage.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from ouroboros import __version__, backend, cli, irm
from ouroboros.errors import IrmError, NodeError, OuroborosError
from ouroboros.qos import NAMED_SPECS
from ouroboros.runtime.client import client
from ouroboros.tools._output import run as run_tool
from ouroboros.tools._output import say
from ouroboros.tools.irm_grammar import Command, Help, UsageError, parse
from ouroboros.tools.irm_help import LIVE, completion_script, help_text
from ouroboros.tools.irm_listing import flow_table, ipcp_table, json_text, layer_text, name_table
from ouroboros.tools.irm_settings import settings

#: Seconds that a shell waits for the words that complete a line.
COMPLETION_TIME = 1.0
#: Seconds that a node may take to appear, so that `irmd &` and `irm` can stand in one script.
HOPE = 2.0


def run(command: Command) -> None:
    """Carry the command out on the running node; raise `OuroborosError` when something asked for was not done."""
    verb = command.verb.object, command.verb.name
    try:
        _RUN[verb](command)
    except NodeError as error:
        if verb not in _LEFT or (left := _left_figures()) is None:
            raise
        kept = backend.count_killed.set(True)
        try:
            _RUN[verb](command)
        finally:
            backend.count_killed.reset(kept)
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(left.updated))
        raise NodeError(
            f"{error}. These are the last figures of process {left.pid}, which was killed or crashed after {when}"
        ) from error


#: What is shown of a node that was killed, too.
_LEFT = {("ipcp", "list"), ("flow", "list")}


def _left_figures() -> irm.NodeFigures | None:
    try:
        figures = irm.last_figures()
    except NodeError:
        return None
    return None if figures.running else figures


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


def _ipcp_keepalive(command: Command) -> None:
    try:
        seconds = float(command.get("every"))
    except ValueError:
        raise UsageError(
            f"every is a number of seconds, not {command.get('every')!r}", command.verb.object, command.verb.name
        ) from None
    cli.keep_alive_ipcp(command.get("name"), seconds)


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
    if command.has("any") and command.has("dst"):
        raise UsageError("any and dst NAME exclude each other", command.verb.object, command.verb.name)
    if not dst and not command.has("any"):
        raise UsageError("say with whom: layer NAME, dst NAME, or both, or any", command.verb.object, command.verb.name)
    timeout = _seconds(command)
    ipcp_type = _type(command.get("type")) if command.has("type") else None
    if command.has("any"):
        _enroll_any(command, ipcp_type, timeout)
        return
    if ipcp_type is None and not cli.list_ipcps(name=name):
        ipcp_type = irm.IpcpType.UNICAST
    cli.enroll_ipcp(
        name,
        dst,
        command.has("autobind"),
        ipcp_type=ipcp_type,
        layer=layer,
        connect=command.get("connect") != "no",
        timeout=timeout,
        over=command.values.get("over", ()),
    )


def _enroll_any(command: Command, ipcp_type: irm.IpcpType | None, timeout: float | None) -> None:
    offer = cli.enroll_any(
        command.get("name"),
        command.has("autobind"),
        ipcp_type=ipcp_type,
        layer=command.get("layer") or None,
        connect=command.get("connect") != "no",
        timeout=timeout,
        over=command.values.get("over", ()),
    )
    say(f"{command.get('name')} is a member of {offer}")


def _seconds(command: Command) -> float | None:
    if not (word := command.get("timeout")):
        return None
    try:
        seconds = float(word)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise UsageError(f"timeout {word}: say a number of seconds", command.verb.object, command.verb.name)
    return seconds


def _ipcp_connect(command: Command) -> None:
    qos = NAMED_SPECS[command.get("qos") or "raw"]
    over = command.values.get("over", ())
    cli.connect_ipcp(command.get("name"), command.get("dst"), command.get("component") or "*", qos, over=over)


def _ipcp_disconnect(command: Command) -> None:
    cli.disconnect_ipcp(command.get("name"), command.get("dst"), command.get("component") or "*")


def _ipcp_list(command: Command) -> None:
    ipcp_type = _type(command.get("type")) if command.has("type") else None
    ipcps = cli.list_ipcps(command.get("name") or None, command.get("layer") or None, ipcp_type)
    _print_list(command, ipcps, ipcp_table, "IPCPs", filtered=bool(command.values))


def _layer_show(command: Command) -> None:
    ipcps = [ipcp for ipcp in cli.list_ipcps(layer=command.operand or None) if ipcp.layer]
    if not ipcps:
        what = f"is in no layer {command.operand!r}" if command.operand else "is in no layer"
        raise IrmError(f"this node {what}: 'irm ipcp list' shows what there is")
    say(json_text(ipcps) if command.json else "\n\n".join(map(layer_text, ipcps)) + "\n")


def _name_create(command: Command) -> None:
    policies = {policy.word: policy for policy in irm.LoadBalancePolicy}
    server, client = (
        irm.NameSecPaths(*(command.get(f"{side}{file}path") for file in ("enc", "key", "crt"))) for side in ("s", "c")
    )
    irm.create_name(irm.NameInfo(command.operand, policies[command.get("lb") or "round-robin"], server, client))


def _name_destroy(command: Command) -> None:
    cli.destroy_name(command.operand)


def _name_register(command: Command) -> None:
    cli.reg_name(command.operand, **_places(command))


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


def _save(command: Command) -> None:
    if not command.operand:
        say(irm.save_configuration().removesuffix("\n"))
        return
    try:
        cli.save_configuration(command.operand)
    except OSError as error:
        raise IrmError(f"{command.operand} cannot be written: {error.strerror}") from error


def _completion(command: Command) -> None:
    say(completion_script(command.verb.name).removesuffix("\n"))


def _type(word: str) -> irm.IpcpType:
    return next(ipcp_type for ipcp_type in irm.IpcpType if ipcp_type.word == word)


def _print_list(
    command: Command, entries: Sequence[Any], show: Callable[[Sequence[Any]], str], what: str, *, filtered: bool
) -> None:
    if not entries and filtered:
        raise IrmError(f"none of the {what} match: 'irm {command.verb.object} list' shows all")
    if command.json:
        say(json_text(entries))
    else:
        say((show(entries) if entries else f"No {what} in system.") + "\n")


def _complete(kind: str) -> int:
    """Print what the running node has of a kind, for completion: nothing when there is no node or it takes its time.

    A name that a shell would have to quote is left out: anybody may have chosen it.
    """
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, COMPLETION_TIME)
    with contextlib.suppress(OuroborosError), irm.running_node_only():
        for word in sorted(set(_LIVE[kind]())):
            if re.fullmatch(r"[\w.@][\w.@%+:/-]*", word):
                say(word)
    return 0


#: What the node has, by the kinds of `irm_help.LIVE`.
_LIVE: dict[str, Callable[[], list[str]]] = {
    "names": lambda: [info.name for info in cli.list_names()],
    "ipcps": lambda: [ipcp.name for ipcp in cli.list_ipcps()],
    "layers": lambda: [ipcp.layer for ipcp in cli.list_ipcps()],
    "pids": lambda: [str(pid) for flow in irm.list_flows() for pid in flow.pids if pid],
}


def _note(text: str) -> None:
    say(f"irm: {text}", err=True)


_RUN: dict[tuple[str, str], Callable[[Command], None]] = {
    ("ipcp", "create"): _ipcp_create,
    ("ipcp", "destroy"): _ipcp_destroy,
    ("ipcp", "bootstrap"): _ipcp_bootstrap,
    ("ipcp", "impair"): _ipcp_impair,
    ("ipcp", "peer"): _ipcp_peer,
    ("ipcp", "keepalive"): _ipcp_keepalive,
    ("ipcp", "enroll"): _ipcp_enroll,
    ("ipcp", "connect"): _ipcp_connect,
    ("ipcp", "disconnect"): _ipcp_disconnect,
    ("ipcp", "list"): _ipcp_list,
    ("layer", "show"): _layer_show,
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
    ("save", ""): _save,
    ("completion", "bash"): _completion,
    ("completion", "zsh"): _completion,
    ("completion", "fish"): _completion,
}


def irm_main(words: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    if len(words) == 2 and words[0] == "--complete" and words[1] in LIVE:
        return _complete(words[1])
    try:
        command = parse(words)
        if isinstance(command, Help):
            say(f"irm {__version__}" if command.version else help_text(command.words))
            return 0
        with irm.running_node_only():
            run(command)
    except UsageError as error:
        hint = " ".join(["irm", *error.help_for, "--help"])
        say(f"irm: {error}\nTry '{hint}'.", err=True)
        return 2
    except (OuroborosError, ValueError) as error:  # ValueError: a path that is too long
        say(f"irm: {error}", err=True)
        return 1
    return 0


def main() -> None:
    """Entry point of the `irm` command."""
    client.hope = HOPE
    run_tool(lambda: irm_main(sys.argv[1:]))


if __name__ == "__main__":
    main()
