"""What `holdfast plan` shows, as lines and as plain values. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

from agent.commands.findings import terminal_cells, wrapped
from agent.toolbox.reckoning import Cycle
from protocols.field.modbus_address import place
from protocols.field.opcua_settings import GroupSettings
from protocols.field.opcua_settings import Settings as OpcuaSettings
from protocols.program.terminal import size, table_lines

if TYPE_CHECKING:
    from agent.settings import Device
    from protocols.field.contract import Group

ASKS_SHOWN_MAX = 40
FULL = 0.7
"""Above this load a device that answers slower than assumed once does not keep its period."""

Gaps = dict[int, tuple[int, int]]


def modbus_lines(device: Device, cycles: Sequence[Cycle], gaps: Gaps, answer_ms: float) -> list[str]:
    """A table of requests per group, then the load."""
    return list(_modbus_lines(device, cycles, gaps, answer_ms, terminal_cells()))


def _modbus_lines(
    device: Device, cycles: Sequence[Cycle], gaps: Gaps, answer_ms: float, cells: int | None
) -> Iterator[str]:
    yield f"{device.name}: {_count(sum(len(one.group.tags) for one in cycles), 'tag')}; nothing was sent"
    for one in cycles:
        yield ""
        yield from _group(one, cells)
    yield ""
    yield from table_lines(
        ["group", ">every", ">requests/s", ">bytes/s", ">one cycle", ">load"], list(_loads(cycles)), cells
    )
    yield ""
    if (load := sum(one.load for one in cycles)) > 1:
        text = f"cannot be kept: the connection would have to be busy for {load:.0%} of the time"
        yield from wrapped(text, cells, "✗ ", "  ")
        yield from wrapped("longer periods, fewer tags, a larger max_gap, or a faster line", cells, "  → ", "    ")
    elif load > FULL:
        text = f"little is left: busy for {load:.0%} of the time; a slow answer makes the agent skip a read"
        yield from wrapped(text, cells, "! ", "  ")
    compared = ", ".join(f"{gap}: {requests} ({size(total)})" for gap, (requests, total) in gaps.items())
    yield from wrapped(f"Requests of all groups by max_gap: {compared}.", cells)
    yield from wrapped(f"Assumed: {answer_ms:g} ms from each question to its answer (--answer MS).", cells)


def _group(one: Cycle, cells: int | None) -> Iterator[str]:
    group = one.group
    tags = _count(len(group.tags), "tag")
    yield f"group {group.name}, every {group.period_s:g} s: {_count(len(one.asks), 'request')} for {tags}"
    rows = [
        [
            ask.block.unit_id,
            place(ask.block.table, ask.block.address, ask.block.count),
            len(ask.block.members),
            ask.wasted or "",
            f"{ask.request_bytes} + {ask.answer_bytes}",
            f"{ask.duration_s * 1000:.0f} ms",
        ]
        for ask in one.asks[:ASKS_SHOWN_MAX]
    ]
    yield from table_lines(["unit", "reads", ">tags", ">unused", ">bytes", ">takes"], rows, cells)
    if len(one.asks) > ASKS_SHOWN_MAX:
        yield f"… and {len(one.asks) - ASKS_SHOWN_MAX} more; --json has them all"


def _loads(cycles: Sequence[Cycle]) -> Iterator[list[str]]:
    for one in cycles:
        period_s = one.group.period_s
        yield [
            one.group.name,
            f"{period_s:g} s",
            f"{len(one.asks) / period_s:.3g}",
            f"{one.size / period_s:.0f}",
            _duration(one.duration_s),
            f"{one.load:.1%}",
        ]
    if len(cycles) > 1:
        requests, sizes, load = _together(cycles)
        yield ["together", "", f"{requests:.3g}", f"{sizes:.0f}", "", f"{load:.1%}"]


def _together(cycles: Sequence[Cycle]) -> tuple[float, float, float]:
    requests = sum(len(one.asks) / one.group.period_s for one in cycles)
    return requests, sum(one.size / one.group.period_s for one in cycles), sum(one.load for one in cycles)


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def modbus_plain(device: Device, cycles: Sequence[Cycle], gaps: Gaps) -> dict[str, Any]:
    """The same as plain values."""
    requests, sizes, load = _together(cycles)
    return {
        "device": device.name,
        "can_be_kept": load <= 1,
        "load": load,
        "requests_per_s": requests,
        "bytes_per_s": sizes,
        "groups": [
            {
                "name": one.group.name,
                "period_s": one.group.period_s,
                "tags": len(one.group.tags),
                "cycle_s": one.duration_s,
                "load": one.load,
                "requests": [
                    {
                        "unit_id": ask.block.unit_id,
                        "table": ask.block.table.value,
                        "address": ask.block.address,
                        "count": ask.block.count,
                        "unused": ask.wasted,
                        "tags": [one.group.tags[member].name for member in ask.block.members],
                        "request_bytes": ask.request_bytes,
                        "answer_bytes": ask.answer_bytes,
                        "takes_s": ask.duration_s,
                    }
                    for ask in one.asks
                ],
            }
            for one in cycles
        ],
        "by_max_gap": {str(gap): {"requests": number, "bytes": total} for gap, (number, total) in gaps.items()},
    }


def opcua_lines(device: Device, settings: OpcuaSettings) -> list[str]:
    """What is asked once, and what then comes."""
    plain = opcua_plain(device, settings)
    rows = [
        [
            one["name"],
            f"{one['period_s']:g} s",
            one["tags"],
            one["mode"],
            one["requests_at_connect"],
            f"{one['requests_per_s']:.3g}",
            "" if one["sampling_ms"] is None else f"{one['sampling_ms']:g} ms",
        ]
        for one in plain["groups"]
    ]
    columns = ["group", ">every", ">tags", "mode", ">at connect", ">requests/s", ">sampled every"]
    head = f"{device.name}: {_count(sum(one['tags'] for one in plain['groups']), 'tag')}; nothing was sent"
    text = "At connect: what sets the subscription up. Then the server reports what changed, at most once a period."
    return [head, "", *table_lines(columns, rows, terminal_cells()), "", *wrapped(text, terminal_cells())]


def opcua_plain(device: Device, settings: OpcuaSettings) -> dict[str, Any]:
    """Requests of each group. A subscription takes one to be made and one per max_nodes_per_read items."""
    return {"device": device.name, "groups": [_opcua_group(group, settings) for group in device.groups]}


def _opcua_group(group: Group, settings: OpcuaSettings) -> dict[str, Any]:
    options = group.options if isinstance(group.options, GroupSettings) else GroupSettings()
    reads = ceil(len(group.tags) / settings.max_nodes_per_read)
    is_poll = options.mode == "poll"
    sampling_ms = group.period_s * 1000 if options.sampling_ms is None else options.sampling_ms
    return {
        "name": group.name,
        "period_s": group.period_s,
        "tags": len(group.tags),
        "mode": options.mode,
        "requests_at_connect": 0 if is_poll else 1 + reads,
        "requests_per_s": (reads if is_poll else 1) / group.period_s,
        "sampling_ms": None if is_poll else sampling_ms,
    }


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
