"""The fault suite.

python -m tests.faults                     all rows, some 25 minutes
python -m tests.faults --quick             the part that `make test` runs
python -m tests.faults --row kill-agent --count 50 --seed 7
python -m tests.faults --list
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import platform
import random
import sys
import time
from pathlib import Path

from tests.faults import report
from tests.faults.rows import BY_NAME, ROWS
from tests.faults.runner import Job, run
from tests.faults.stage import Outcome


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="The fault suite of Holdfast.")
    parser.add_argument("--row", action="append", choices=sorted(BY_NAME), help="only this one; may be repeated")
    parser.add_argument("--quick", action="store_true", help="the small part that `make test` runs")
    parser.add_argument("--count", type=int, help="so many injections in each row")
    parser.add_argument("--seed", type=int, help="of the dice; a failed row names the one it had")
    parser.add_argument("--jobs", type=int, default=4, help="rows at once (4)")
    parser.add_argument("--json", type=Path, help="write the outcomes to this file, too")
    parser.add_argument("--write", type=Path, help="put the table into this document, below its heading Results")
    parser.add_argument("--keep", type=Path, help="work in this new folder and leave it there")
    parser.add_argument("--list", action="store_true", help="say which rows there are")
    return parser.parse_args()


def jobs(names: list[str] | None, *, quick: bool, count: int | None, seed: int) -> list[Job]:
    """The rows asked for, in the order of the table."""
    rows = [row for row in ROWS if names is None or row.name in names]
    wanted = [(row, count or (row.quick if quick else row.full)) for row in rows]
    return [Job(row.name, number, seed) for row, number in wanted if number]


def main() -> int:
    arguments = _arguments()
    if arguments.list:
        for row in ROWS:
            print(f"{row.name:18} {row.full:4} / {row.quick:2}  {row.what}")
        return 0
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1_000_000)
    planned = jobs(arguments.row, quick=arguments.quick, count=arguments.count, seed=seed)
    print(f"{len(planned)} rows, seed {seed}", flush=True)
    began_s = time.monotonic()
    outcomes = asyncio.run(run(planned, arguments.jobs, _say, arguments.keep))
    print()
    print(report.table(outcomes))
    print()
    skipped = [outcome.row for outcome in outcomes if outcome.skipped]
    failed = [outcome.row for outcome in outcomes if outcome.failed]
    print(f"{len(outcomes)} rows in {time.monotonic() - began_s:.0f} s, seed {seed}.")
    if skipped:
        print(f"NOT DONE on this machine, for the reasons above: {', '.join(skipped)}")
    if failed:
        print(f"FAILED: {', '.join(failed)}")
    if arguments.json:
        arguments.json.write_text(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=1))
    if arguments.write:
        _write(arguments.write, report.table(outcomes), f"seed {seed}")
    return 1 if failed else 0


def _write(document: Path, table: str, seed: str) -> None:
    before, heading, after = document.read_text(encoding="utf-8").partition("\n## Results\n")
    _, following, rest = after.partition("\n## ")
    command = "python -m tests.faults " + " ".join(sys.argv[1:])
    when = time.strftime("%Y-%m-%d", time.gmtime())
    said = f"{when}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, {seed}:"
    whole = f"{before}{heading}\n{said}\n\n```sh\n{command}\n```\n\n{table}\n{following}{rest}"
    document.write_text(whole, encoding="utf-8")


def _say(outcome: Outcome) -> None:
    word = "skipped" if outcome.skipped else "FAILED" if outcome.failed else "ok"
    print(f"{outcome.row}: {word}, {outcome.seconds:.0f} s", flush=True)
    if said := report.details(outcome):
        print(said, flush=True)


if __name__ == "__main__":
    sys.exit(main())
