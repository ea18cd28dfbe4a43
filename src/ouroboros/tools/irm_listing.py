"""The lists of the `irm` command: framed tables as the C prototype prints them, and JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import msgspec

from ouroboros.irm import FlowInfo, IpcpInfo, IpcpType, NameInfo
from ouroboros.qos import QoSSpec


def table(columns: Sequence[tuple[str, int]], rows: Sequence[Sequence[str]]) -> str:
    """A framed table, cells to the right. `columns`: title and least width; a longer cell widens its column."""
    widths = [max([least, *(len(row[i]) for row in rows)]) for i, (_, least) in enumerate(columns)]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    lines = [_row(cells, widths) for cells in ([title for title, _ in columns], *rows)]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def ipcp_table(ipcps: Sequence[IpcpInfo]) -> str:
    rows = [(str(ipcp.pid), ipcp.name, ipcp.type.word, _layer(ipcp)) for ipcp in ipcps]
    return table([("pid", 7), ("name", 20), ("type", 10), ("layer", 20)], rows)


def _layer(ipcp: IpcpInfo) -> str:
    if ipcp.state == "failed":
        return f"{ipcp.layer} failed: {ipcp.reason}"
    return ipcp.layer or "Not enrolled."


def name_table(names: Sequence[NameInfo]) -> str:
    return table([("name", 50), ("load-balance policy", 20)], [(name.name, name.pol_lb.word) for name in names])


def flow_table(flows: Sequence[FlowInfo]) -> str:
    columns = [("flow", 7), ("name", 30), ("allocator", 9), ("acceptor", 9), ("qos", 20)]
    return table(
        columns, [(str(f.flow_id), f.name, *(_end(f, pid) for pid in f.pids), qos_words(f.qos)) for f in flows]
    )


def _end(flow: FlowInfo, pid: int) -> str:
    return str(pid) if pid else flow.address or "node"


def layer_text(ipcp: IpcpInfo) -> str:
    """A member of a layer, with what it knows of the others."""
    lines = [f"{ipcp.name} is member {ipcp.address or ipcp.pid} of {ipcp.type.word} layer {ipcp.layer} ({ipcp.state})"]
    if ipcp.connections:
        columns = [
            ("neighbour", 20),
            ("address", 11),
            ("component", 13),
            ("node", 9),
            ("over", 9),
            ("state", 7),
            ("age", 8),
        ]
        rows = [
            (each.name, each.address, each.component, each.peer, each.over, each.state, f"{each.age:.0f} s")
            for each in ipcp.connections
        ]
        lines += ["Connections:", table(columns, rows)]
    if ipcp.routes:
        columns = [("member", 11), ("node", 9), ("hops", 4), ("by way of", 11)]
        ways = [(each.address, each.peer, str(each.hops), " ".join(each.via)) for each in ipcp.routes]
        lines += ["Members that can be reached:", table(columns, ways)]
    elif ipcp.type is IpcpType.UNICAST:
        lines.append("No other member can be reached.")
    if ipcp.enroll:
        lines.append(f"May enroll: {', '.join(ipcp.enroll)}")
    lines.append(f"Names of this node: {', '.join(ipcp.registered) or 'none'}; kept for the layer: {ipcp.kept}")
    return "\n".join(lines)


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
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, IntEnum):
        return getattr(value, "word", value.name)
    return value
