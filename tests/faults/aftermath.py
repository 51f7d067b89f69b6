"""How a plant ends a fault that has destroyed an outbox: time passes, agents say what they know, and what nobody
answers for then is written off by the operator, with the real command (docs/operations.md)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import Any

from tests.faults.line import Line

CALM_LOOKS = 5
"""So many looks in a row must see the same, before an agent has no more to say. Confirms ask once a second."""

Missing = dict[tuple[str, str, str], int]
"""Plant, machine and epoch → batches."""


async def the_grace_time_passes(line: Line) -> None:
    """As a day goes by: what was kept of earlier epochs is let go of, and agents tell what became of the rest."""
    for gateway in line.gateways:
        gateway.service.stop()
        line.write_agent(gateway, outbox={"grace_s": 0})
        gateway.service.start()
    await line.flows("after the grace time")
    seen: list[Missing] = []

    def is_settled() -> bool:
        seen.append(_missing(line, abandoned=True))
        calm = seen[-CALM_LOOKS:]
        return len(calm) == CALM_LOOKS and all(one == calm[0] for one in calm) and not _missing(line, abandoned=False)

    await line.until("gateways answer for what is missing, or name it no more", is_settled)


def write_off(line: Line, why: str) -> int:
    """Of all machines; how many batches."""
    machines = Counter((plant, machine) for plant, machine, _ in _missing(line, abandoned=True))
    words = ("--yes", "--reason", why)
    return sum(_asked(line, "machine", "write-off", *machine, *words)["written_off"] for machine in machines)


def _missing(line: Line, *, abandoned: bool) -> Missing:
    """What the ledger waits for, in epochs that no gateway answers for any more, or in the others."""
    return {
        (one["plant"], one["machine"], one["epoch"]): one["missing"]
        for one in _asked(line, "ledger")["epochs"]
        if one["missing"] and one["abandoned"] is abandoned
    }


def _asked(line: Line, *words: str) -> dict[str, Any]:
    """What the command says as JSON. The ledger ends with 1 where something is missing."""
    command = [sys.executable, "-m", "cloud.cli", *words, "--json", "--config", str(line.receiver.config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode in (0, 1) and "error" not in found, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return found
