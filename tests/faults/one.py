"""One row in a process of its own, so that no row slows another's event loop: its outcome as JSON on stdout.

python -m tests.faults.one ROW COUNT SEED FOLDER
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path

from tests.faults.rows import BY_NAME
from tests.faults.stage import Outcome, Row, Stage
from tests.support.brokers import BrokerProblem


async def play(row: Row, count: int, seed: int, folder: Path) -> Outcome:
    """Never raises what a row can fail with: it is a fault in the outcome."""
    outcome = Outcome(row.name, seed)
    outcome.skipped = next((reason for need in row.needs if (reason := need())), "")
    if outcome.skipped:
        return outcome
    began_s = time.monotonic()
    stage = Stage(row, folder, random.Random(seed), count, outcome)
    try:
        async with asyncio.timeout(row.timeout_s):
            outcome.verdict = await row.play(stage)
    except TimeoutError:
        outcome.verdict.faults.append(f"not done within {row.timeout_s:.0f} s")
    except (AssertionError, BrokerProblem, OSError, sqlite3.Error) as error:
        outcome.verdict.faults.append(f"{type(error).__name__}: {error}")
    if outcome.failed:
        outcome.notes.append(f"everything of this run is in {folder}")
    outcome.seconds = time.monotonic() - began_s
    return outcome


def main() -> None:
    name, count, seed, folder = sys.argv[1:]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what runs for the row ends with it
    outcome = asyncio.run(play(BY_NAME[name], int(count), int(seed), Path(folder)))
    print(json.dumps(dataclasses.asdict(outcome)))


if __name__ == "__main__":
    main()
