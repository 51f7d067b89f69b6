"""`holdfast replay`: serves what `holdfast capture` recorded as a simulated device."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.commands.findings import terminal_cells, wrapped
from agent.commands.options import Json
from protocols.program.console import UNAVAILABLE, USAGE, Failure
from protocols.program.terminal import print_json, progress, table

if TYPE_CHECKING:
    from agent.capture.records import Capture

PORT = 5020
HOST = "127.0.0.1"


def replay(
    file: Annotated[Path, typer.Argument(help="What holdfast capture recorded.", show_default=False)],
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0: any free one.")] = PORT,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = HOST,
    speed: Annotated[
        float, typer.Option(min=0, max=1000, help="How many times faster than it was; 0: without delays.")
    ] = 1.0,
    write: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a configuration that reads it, too.", show_default=False),
    ] = None,
    as_list: Annotated[bool, typer.Option("--list", help="Only list what was recorded, record by record.")] = False,
    pcap: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Only write it as a pcap, for Wireshark.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve a recording as a simulated Modbus device, with its faults."""
    from agent.capture.records import joined
    from agent.commands.replay_run import served_until_stopped
    from protocols.field.contract import Happening
    from protocols.program.tasks import run_until_signal

    with progress(f"reading {file}"):
        found = _read(file)
        records = joined(found.records)
    _warn(found)
    if pcap is not None:
        _write_pcap(found, pcap)
    if as_list:
        _list(found, as_json)
    if pcap is not None or as_list:
        return
    if not records:
        raise Failure(f"{file} holds no records; nothing can be served", USAGE)
    if write is not None and write.exists():
        raise Failure(f"{write} is there already; choose another name", USAGE)
    where = host, port
    if any(record.happening is Happening.READ for record in records):
        from agent.commands.replay_readings import readings_until_stopped

        run_until_signal(
            lambda stopping: readings_until_stopped(found, records, where, speed, write, as_json, stopping)
        )
    else:
        run_until_signal(lambda stopping: served_until_stopped(found, where, speed, write, as_json, stopping))


def _read(path: Path) -> Capture:
    from agent.capture.records import CaptureError
    from agent.capture.ring import read_file

    try:
        return read_file(path)
    except OSError as error:
        raise Failure(f"{path} cannot be read ({error.strerror})", USAGE) from error
    except CaptureError as error:
        why = f"{path} is no capture file that can be read: {error}; make one with: holdfast capture DEVICE"
        raise Failure(why, USAGE) from None


def _warn(found: Capture) -> None:
    if found.damaged or found.missing:
        text = f"! {found.damaged} damaged and {found.missing} missing blocks; the rest is used"
        sys.stderr.write("\n".join(wrapped(text, terminal_cells())) + "\n")


def _list(found: Capture, as_json: bool) -> None:
    from agent.capture.records import joined
    from agent.capture.told import lines

    if as_json:
        rows = [
            {"time_us": one.time_us, "happening": one.happening.name.lower(), **_content(one)}
            for one in joined(found.records)
        ]
        print_json({"transport": found.header.transport, "endpoint": found.header.endpoint, "records": rows})
        return
    cells = terminal_cells()
    for line in lines(joined(found.records)):
        sys.stdout.write("\n".join(wrapped(line, cells, then=" " * 15)) + "\n")


def _content(record: Any) -> dict[str, str]:
    from protocols.field.contract import Happening

    if record.happening in (Happening.SENT, Happening.RECEIVED):
        return {"bytes": record.content.hex()}
    return {"reason": record.text} if record.content else {}


def _write_pcap(found: Capture, path: Path) -> None:
    from agent.capture.pcap import pcap

    port = found.header.endpoint.rpartition(":")[2]
    pieces = pcap(found.records, found.header.transport, int(port) if port.isascii() and port.isdigit() else 0)
    try:
        with path.open("xb") as file:
            file.writelines(pieces)
    except OSError as error:
        raise Failure(f"{path} cannot be written ({error.strerror})", UNAVAILABLE) from error
    sys.stderr.write(f"{path} holds it for Wireshark; its addresses and headers are made up\n")


def show_served(rows: list[dict[str, Any]], as_json: bool, plain: dict[str, Any]) -> None:
    """What is served: as one JSON document, or as a table."""
    if as_json:
        print_json({**plain, "serves": rows})
    else:
        columns = ["unit", "function", "addresses", ">asked", ">ms", "other than answers"]
        keys = ("unit_id", "function", "addresses", "asked", "median_ms", "faults_text")
        table(columns, [[row[key] for key in keys] for row in rows], fold=True)
    sys.stdout.flush()
