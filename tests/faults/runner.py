"""Runs rows in processes of their own, some at a time."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.oracle import Verdict
from tests.faults.rows import BY_NAME
from tests.faults.stage import Outcome

GRACE_S = 60.0


@dataclass(frozen=True)
class Job:
    """A row with its number of injections and its seed."""

    row: str
    count: int
    seed: int


async def run(
    jobs: Sequence[Job], at_once: int, done: Callable[[Outcome], None], keep: Path | None = None
) -> list[Outcome]:
    """Each job's outcome, in the order of the jobs; `done` is called as each ends. Folders of failed rows stay."""
    places = asyncio.Semaphore(at_once)
    home = Path(tempfile.mkdtemp(prefix="holdfast-faults-")) if keep is None else keep

    async def one(job: Job) -> Outcome:
        async with places:
            outcome = await _run_one(job, home / job.row)
            done(outcome)
            return outcome

    outcomes = await asyncio.gather(*(one(job) for job in jobs))
    if keep is None and not any(outcome.failed for outcome in outcomes):
        shutil.rmtree(home)
    return outcomes


async def _run_one(job: Job, folder: Path) -> Outcome:
    await asyncio.to_thread(folder.mkdir, parents=True)
    command = [sys.executable, "-m", "tests.faults.one", job.row, str(job.count), str(job.seed), str(folder)]
    with (folder / "harness.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=log)
        try:
            async with asyncio.timeout(BY_NAME[job.row].timeout_s + GRACE_S):
                out, _ = await process.communicate()
        except TimeoutError:
            process.terminate()
            out, _ = await process.communicate()
    try:
        plain = json.loads(out)
    except ValueError:
        said = (folder / "harness.log").read_text(errors="replace")[-1500:]
        return Outcome(job.row, job.seed, verdict=Verdict(faults=[f"the harness failed: {said}"]))
    outcome = Outcome(**{**plain, "verdict": Verdict(**plain["verdict"])})
    if not outcome.failed:
        shutil.rmtree(folder)
    return outcome
