"""`holdfast replay` of readings: what an OPC UA server said, said again by a server of ours."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from agent.capture.readings import Course
from agent.capture.records import Capture, Record
from agent.capture.told import span_s
from agent.commands.findings import terminal_cells, wrapped
from agent.commands.replay_run import write_device
from agent.toolbox.rehearsal import opcua_at
from protocols.field.contract import Group, Tag, Value
from protocols.field.opcua import TagSettings
from protocols.field.opcua import tag as tag_of
from protocols.program.console import UNAVAILABLE, USAGE, Failure
from protocols.program.tasks import Tasks
from protocols.program.terminal import ago, print_json, progress, table


async def readings_until_stopped(
    found: Capture,
    records: list[Record],
    where: tuple[str, int],
    speed: float,
    write: Path | None,
    as_json: bool,
    stopping: asyncio.Event,
) -> None:
    """Serves the recorded values at their nodes, in their time, and ends when `stopping`."""
    _check(found)
    from agent.plant.opcua import OpcuaPlant

    course, group = Course(records), _group(found.header.device)
    begun_us = time.time_ns() // 1000

    def show(tag: Tag, time_us: int) -> tuple[Value, int]:
        return course.at(tag.name, int((time_us - begun_us) * (speed or 1)))

    plant = OpcuaPlant([group], show)
    try:
        with progress("making the server"):
            await asyncio.to_thread(importlib.import_module, "asyncua")
            port = await plant.start(*where)
        url = f"opc.tcp://{where[0]}:{port}/"
        if write is not None:
            write_device(found, lambda device: opcua_at(device, url), write)
        _tell(found, course, url, span_s(records), write, as_json)
        async with Tasks(stopping, grace_s=0) as tasks:
            tasks.spawn("values", plant.run())
            with progress(f"serving {url}"):
                await tasks.wait()
    except OSError as error:
        why = f"port {where[1]} of {where[0]} cannot be listened on ({error.strerror}); give another one with --port"
        raise Failure(why, UNAVAILABLE) from error
    finally:
        await plant.stop()


def _check(found: Capture) -> None:
    protocol = found.header.device.get("protocol")
    if protocol != "opcua":
        raise Failure(
            f"readings of protocol {protocol!r} can be listed (--list), not served; served are modbus and opcua", USAGE
        )
    if importlib.util.find_spec("asyncua") is None:
        raise Failure("serving OPC UA needs asyncua; install it with: pip install 'holdfast[opcua]'", UNAVAILABLE)


def _group(device: Mapping[str, Any]) -> Group:
    """All tags of the recorded device."""
    try:
        given = [one for group in device["groups"] for one in group["tags"]]
        tags = tuple(tag_of(TagSettings.model_validate(one)) for one in given)
    except (ValidationError, ValueError, KeyError, TypeError) as error:  # a stranger's file
        raise Failure("its header describes no OPC UA device; nothing can be served", USAGE) from error
    return Group(str(device.get("name")), "recorded", 1.0, tags)


def _tell(found: Capture, course: Course, url: str, seconds: float, write: Path | None, as_json: bool) -> None:
    if as_json:
        rows = [{"tag": tag, "readings": count, "not_good": bad} for tag, (count, bad) in course.tags.items()]
        print_json({"url": url, "recorded": found.header.endpoint, "seconds": round(seconds, 3), "serves": rows})
    else:
        table(["tag", "readings", "not good"], [[tag, count, bad] for tag, (count, bad) in course.tags.items()])
        name = found.header.device.get("name", "?")
        what = (
            f"{name} ({found.header.endpoint}), {ago(seconds)} with {course.readings:,} readings from "
            f"{found.header.started}, on {url}; at the end again from the beginning."
        )
        notes = ["", what]
        if write is not None:
            notes.append(f"Read it: holdfast read {name} --watch --config {write}")
        cells = terminal_cells()
        sys.stdout.write("\n".join(line for one in [*notes, "Ctrl-C ends it."] for line in wrapped(one, cells)) + "\n")
    sys.stdout.flush()
