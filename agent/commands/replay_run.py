"""What `holdfast replay` does until it is stopped, and what it says meanwhile."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.capture.conversation import Conversation, conversation
from agent.capture.records import Capture, joined
from agent.capture.replaying import Replay
from agent.capture.told import Served, served, span_s
from agent.commands.findings import terminal_cells, wrapped
from agent.commands.replay import show_served
from agent.settings import DeviceSettings
from agent.toolbox.rehearsal import document, modbus_at
from agent.toolbox.written import scalar
from protocols.field.modbus_server import ModbusServer, ServedTransport
from protocols.program.console import UNAVAILABLE, USAGE, Failure
from protocols.program.terminal import ago, progress

LOOK_S = 0.2
RANGES_SHOWN_MAX = 4
_OTHERWISE = (
    "A read that was never asked just so gets the values last served of its registers, where all are known; anything "
    "else gets exception 2."
)
_SERVED: dict[str, ServedTransport] = {
    "tcp": "tcp",
    "udp": "udp",
    "rtu_over_tcp": "rtu_over_tcp",
    "rtu": "rtu_over_tcp",
}


async def served_until_stopped(
    found: Capture, where: tuple[str, int], speed: float, write: Path | None, as_json: bool, stopping: asyncio.Event
) -> None:
    """Listens, says what it serves, and ends when `stopping`."""
    transport = _SERVED.get(found.header.transport)
    records = joined(found.records)
    if transport is None:
        raise Failure(f"a recording of transport {found.header.transport!r} cannot be served", UNAVAILABLE)
    with progress("putting it together"):
        told = conversation(records, found.header.transport)
        rows = [_row(one) for one in served(told)]
        replay = Replay(told, transport, speed)
    server = ModbusServer(transport, replay.answer, replay.greet)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it logs each client that goes away while we send
    await listen(server, where)
    try:
        if write is not None:
            write_device(found, lambda device: modbus_at(device, server.transport, server.host, server.port), write)
        show_served(rows, as_json, _plain(found, server, told, span_s(records)))
        if not as_json:
            _say(_notes(found, server, told, span_s(records), speed, write))
        with progress(f"serving {server.host}:{server.port}") as shown:
            while not stopping.is_set():
                shown.update(_so_far(replay))
                await asyncio.sleep(LOOK_S)
    finally:
        await server.stop()
    sys.stderr.write(f"{_so_far(replay)}\n")


async def listen(server: ModbusServer, where: tuple[str, int]) -> None:
    """Raises Failure where the port cannot be had."""
    try:
        await server.start(*where)
    except OSError as error:
        host, port = where
        why = f"port {port} of {host} cannot be listened on ({error.strerror}); give another one with --port, or 0"
        raise Failure(why, UNAVAILABLE) from error


def write_device(found: Capture, at: Callable[[Mapping[str, Any]], dict[str, Any]], path: Path) -> None:
    """A configuration of the recorded device as it is served: `at` says where. Raises Failure."""
    try:
        DeviceSettings.model_validate(found.header.device)
        device = at(found.header.device)
        text = document([device], None, f"Reads what holdfast replay serves of {scalar(found.header.endpoint)}.")
    except (ValidationError, RecursionError) as error:  # a stranger's file
        raise Failure("its header describes no device; nothing was written", USAGE) from error
    write_new(path, text)


def write_new(path: Path, text: str) -> None:
    """Raises Failure where it cannot be written, or is there already."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Failure(f"{path} cannot be written ({error.strerror})", UNAVAILABLE) from error


def _row(one: Served) -> dict[str, Any]:
    faults = ", ".join(f"{count} × {word}" for word, count in one.faults.most_common())
    return {
        "unit_id": one.unit_id,
        "function": one.function,
        "table": one.table,
        "ranges": one.ranges,
        "addresses": f"{one.table} {_ranges(one.ranges)}",
        "questions": one.questions,
        "asked": one.asked,
        "median_ms": one.median_ms,
        "replies": dict(one.replies),
        "faults_text": faults or "-",
    }


def _ranges(ranges: list[tuple[int, int]]) -> str:
    words = [str(first) if first == last else f"{first}–{last}" for first, last in ranges[:RANGES_SHOWN_MAX]]
    more = len(ranges) - RANGES_SHOWN_MAX
    return ", ".join(words) + (f" and {more} more" if more > 0 else "")


def _plain(found: Capture, server: ModbusServer, told: Conversation, seconds: float) -> dict[str, Any]:
    return {
        "host": server.host,
        "port": server.port,
        "transport": server.transport,
        "recorded": found.header.endpoint,
        "started": found.header.started,
        "seconds": round(seconds, 3),
        "requests": told.count,
        "connections": len(told.greetings),
    }


def _notes(
    found: Capture, server: ModbusServer, told: Conversation, seconds: float, speed: float, write: Path | None
) -> list[str]:
    pace = "without delays" if speed == 0 else "with the recorded delays" if speed == 1 else f"{speed:g} times as fast"
    name = found.header.device.get("name", "?")
    what = (
        f"{name} ({found.header.endpoint}), {ago(seconds)} with {told.count:,} requests from {found.header.started}, "
        f"on {server.host}:{server.port} ({server.transport}), {pace}; at the end again from the beginning."
    )
    notes = ["", what, _OTHERWISE]
    if write is not None:
        notes.append(f"Read it: holdfast read {name} --watch --config {write}")
    return [*notes, "Ctrl-C ends it."]


def _say(notes: list[str]) -> None:
    cells = terminal_cells()
    sys.stdout.write("\n".join(line for note in notes for line in wrapped(note, cells)) + "\n")
    sys.stdout.flush()


def _so_far(replay: Replay) -> str:
    return f"{replay.served:,} requests; never recorded: {replay.composed:,} composed, {replay.unknown:,} refused"
