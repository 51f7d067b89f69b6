"""`make bench`: what Holdfast costs on this machine, beside its peers and the machine's own limit.

    python -m bench [--quick] [--only SECTION ...] [--no-peers] [--recording CSV ...] [--json FILE]

Each figure comes from this run. A run in which anything was lost or doubled is no figure; its row says so.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from bench import broker, edge, machine
from bench.processes import ROOT
from bench.progress import progress
from bench.table import Row, render

OTHERS = ("codec", "receiver")  # modules of this package that offer rows(options), too
JSON = ROOT / ".bench" / "bench.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description="What Holdfast costs on this machine.")
    parser.add_argument("--quick", action="store_true", help="ours alone and short: under two minutes in all")
    known = [*edge.SECTIONS, *OTHERS]
    parser.add_argument("--only", action="append", choices=known, default=[], metavar="SECTION", help=", ".join(known))
    parser.add_argument("--no-peers", action="store_true", help="leave the peers out")
    parser.add_argument("--recording", type=Path, action="append", default=[], help="a CSV (or .csv.gz) of a plant")
    parser.add_argument("--json", type=Path, default=JSON, help="where the figures go, beside the table")
    options = parser.parse_args()
    options.versions = {"mosquitto": broker.version()}
    begun_s = time.monotonic()
    described = machine.describe()
    rows = list(_measured(options))
    print(" · ".join(f"{key} {value}" for key, value in (described | options.versions).items()))
    print(f"\n{render(rows)}\n")
    words = " ".join(sys.argv[1:])
    found = {
        "command": f"python -m bench {words}".strip(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": described,
        "versions": options.versions,
        "seconds": round(time.monotonic() - begun_s),
        "rows": [row.as_json() for row in rows],
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=2) + "\n")
    progress(f"the figures are in {options.json}")
    return 1 if any(row.ours is None for row in rows) else 0


def _measured(options: argparse.Namespace) -> Iterator[Row]:
    """The edge first: it minds other work on the machine most."""
    if not options.only or set(options.only) & set(edge.SECTIONS):
        yield from edge.rows(options)
    for name in OTHERS:
        if not options.only or name in options.only:
            progress(name)
            found: Iterable[Row] = importlib.import_module(f"bench.{name}").rows(options)
            yield from found


if __name__ == "__main__":
    sys.exit(main())
