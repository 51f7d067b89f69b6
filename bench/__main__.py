"""`make bench`: what Holdfast costs on this machine, as a table and as JSON.

    python -m bench [--quick] [--recording CSV ...] [--json FILE]

Each figure comes from this run. A run in which anything was lost or doubled is no figure, and fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import agent, machine, recordings, wire
from tests.support.brokers import mosquitto

QUICK_S, FULL_S = 8.0, 30.0


async def _agent_rows(directory: Path, seconds: float) -> list[agent.AgentRow]:
    rows = []
    scenarios = ((1.0, 1), (0.1, 1), (0.25, 4))
    for at, (period_s, devices) in enumerate(scenarios):
        async with mosquitto(directory / f"broker-{at}") as broker:
            rows.append(
                await asyncio.to_thread(
                    agent.measure,
                    directory / f"run-{at}",
                    period_s=period_s,
                    devices=devices,
                    seconds=seconds,
                    broker_port=broker.port,
                )
            )
    return rows


def _print(title: str, head: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[at]) for row in [head, *rows]) for at in range(len(head))]
    print(f"\n{title}")
    for row in [head, *rows]:
        padded = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join([row[0].ljust(widths[0]), *padded[1:]]))


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description="What Holdfast costs on this machine.")
    parser.add_argument("--quick", action="store_true", help="shorter runs, under two minutes in all")
    parser.add_argument("--recording", type=Path, action="append", default=[], help="a CSV (or .csv.gz) of a plant")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    seconds = QUICK_S if options.quick else FULL_S
    found: dict[str, Any] = {"machine": machine.describe(), "seconds_per_run": seconds}
    print(" · ".join(f"{key} {value}" for key, value in found["machine"].items()))
    wire_rows = [
        wire.measure(recordings.load(path), scans)
        for path in (options.recording or [recordings.EXCERPT])
        for scans in (60, 10, 1)
    ]
    _print(
        "Bytes per sample, whole messages, lossless, decodable alone",
        ["recording, scans per batch", "Holdfast", "JSON", "JSON + zstd", "× smaller", "encode/CPU-s", "decode/CPU-s"],
        [
            [
                f"{row.recording}, {row.scans}",
                f"{row.holdfast:.3f}",
                f"{row.json:.1f}",
                f"{row.json_zstd:.2f}",
                f"{row.json_zstd / row.holdfast:.1f}",
                f"{row.encode_per_cpu_s:,.0f}",
                f"{row.decode_per_cpu_s:,.0f}",
            ]
            for row in wire_rows
        ],
    )
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as directory:
        agent_rows = asyncio.run(_agent_rows(Path(directory), seconds))
    _print(
        "The whole agent: Modbus TCP → outbox (fsync) → MQTT (mosquitto) → receiver; all stored once",
        ["scenario", "samples/s", "samples/CPU-s", "CPU %", "RSS MB", "read = stored"],
        [
            [
                row.scenario,
                f"{row.samples_per_s:,.0f}",
                f"{row.samples_per_cpu_s:,.0f}",
                f"{row.cpu_percent:.1f}",
                f"{row.rss_mb:.0f}",
                f"{row.stored:,}",
            ]
            for row in agent_rows
        ],
    )
    found |= {"wire": [asdict(row) for row in wire_rows], "agent": [asdict(row) for row in agent_rows]}
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
