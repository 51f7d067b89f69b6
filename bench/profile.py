"""Where the time of both programs goes: profiles by py-spy while they work, as tables beside the bench's.

    python -m bench.profile [--seconds S] [--json .bench/profile.json]

Of the agent at a steady load and at the most that one core of it takes, and of the receiver storing what waits at its
broker. Counted are samples in which a thread works; each goes to the innermost module of ours on its stack, with all
that this calls. `python -m bench.document` writes them into docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bench import machine, receiver
from bench.agent import Holdfast
from bench.processes import ROOT, Process, RunFailed
from bench.progress import progress
from bench.run import Run
from bench.scenario import Load
from bench.table import Row, render

JSON = ROOT / ".bench" / "profile.json"
PY_SPY = Path(sys.executable).with_name("py-spy")
RATE_PER_S = 250
LISTED = 14
STEADY = Load(period_s=0.1)
MOST = Load(devices=20, period_s=0.05)
STORED = {
    "60 scans per batch": receiver.Load(1, 1000, 60, 30),
    "1 scan per batch": receiver.Load(1, 1000, 1, 1500),
}
_FRAME = re.compile(r"^(?P<function>.*) \((?P<file>[^():]+)(:\d+)?\)$")
_OURS = ("agent/", "cloud/", "protocols/")
_RUNNERS = re.compile(r"(agent|cloud)/(cli|commands/run)\.py|protocols/program/.*")
"""On every stack of the event loop, and never the reason."""
_LOOP = "the event loop itself (asyncio)"
_EPOLL = ("selectors.py", "sleeping and waking (epoll)")
_IDLE = "concurrent/futures/thread.py"
"""A thread that waits for work is taken to work by py-spy."""


def rows(seconds: float) -> Iterator[Row]:
    """Of every profile the modules in which most was spent. Raises RunFailed where py-spy may not look."""
    for load in (STEADY, MOST):
        progress(f"profile: the agent, {load}")
        yield from _rows(f"Where the agent's time goes, {load}", _of_agent(load, seconds))
    for name, stored in STORED.items():
        progress(f"profile: the receiver, {name}")
        yield from _rows(f"Where the receiver's time goes, {name}", _of_receiver(stored, seconds))


def _rows(section: str, spent: Mapping[str, int]) -> Iterator[Row]:
    total = sum(spent.values())
    if not total:
        raise RunFailed(f"{section}: py-spy saw nothing")
    ranked = sorted(spent.items(), key=lambda found: -found[1])
    for module, count in ranked[:LISTED]:
        note = f"of {total:,} samples in which a thread worked" if module == ranked[0][0] else ""
        yield Row(section, module, "% of its time", 100 * count / total, note=note, better="lower")
    left = sum(count for _, count in ranked[LISTED:])
    if left:
        yield Row(section, f"{len(ranked) - LISTED} others", "% of its time", 100 * left / total, better="lower")


def by_module(stacks: str) -> Counter[str]:
    """py-spy's raw output (`frame;frame;… count` a line, outermost first) → samples by module."""
    spent: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        files = [found["file"] for frame in stack.split(";") if (found := _FRAME.match(frame))]
        ours = [file for file in files if file.startswith(_OURS) and not _RUNNERS.fullmatch(file)]
        innermost = files[-1] if files else ""
        if ours:
            spent[ours[-1]] += int(count)
        elif innermost != _IDLE:
            spent[_EPOLL[1] if innermost == _EPOLL[0] else _LOOP] += int(count)
    return spent


def _of_agent(load: Load, seconds: float) -> Counter[str]:
    with tempfile.TemporaryDirectory(prefix="holdfast-profile-") as name, Run(Path(name), Holdfast(), load) as run:
        process = run.start()
        run.wait_for_first_message()
        time.sleep(3.0)
        found = _watched(process, seconds)
        run.process_stops_at_once()
    return found


def _of_receiver(load: receiver.Load, seconds: float) -> Counter[str]:
    """While it stores what was sent before it was let go."""
    found: list[Counter[str]] = []

    def while_storing(process: Process) -> Callable[[], None]:
        watcher = _watch(process, seconds)
        return lambda: found.append(_seen(*watcher))

    receiver.run(receiver.Holdfast, load, while_storing)
    return found[0]


def _watched(process: Process, seconds: float) -> Counter[str]:
    return _seen(*_watch(process, seconds))


def _watch(process: Process, seconds: float) -> tuple[subprocess.Popen[str], Path]:
    output = Path(tempfile.mkstemp(prefix="holdfast-profile-")[1])
    words = ["--pid", str(process.pid), "--duration", str(max(1, round(seconds))), "--rate", str(RATE_PER_S)]
    command = [str(PY_SPY), "record", *words, "--format", "raw", "--output"]
    watcher = subprocess.Popen(
        [*command, str(output)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )
    return watcher, output


def _seen(watcher: subprocess.Popen[str], output: Path) -> Counter[str]:
    _, said = watcher.communicate()
    try:
        found = by_module(output.read_text())
    finally:
        output.unlink()
    if not found:
        raise RunFailed(f"py-spy: {said.strip()[-300:] or 'nothing was seen'}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.profile", description="Where the time of both programs goes."
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each profile lasts")
    parser.add_argument("--json", type=Path, default=JSON, help="where the figures go, beside the tables")
    options = parser.parse_args()
    if not PY_SPY.exists():
        print("py-spy is not installed; it is one of the development packages: make lint", file=sys.stderr)
        return 1
    begun_s = time.monotonic()
    try:
        found = list(rows(options.seconds))
    except RunFailed as error:
        print(f"no profile: {error}", file=sys.stderr)
        return 1
    print(render(found))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    about = {"command": "python -m bench.profile", "seconds": round(time.monotonic() - begun_s)}
    content = {**about, "machine": machine.describe(), "versions": {}, "rows": [row.as_json() for row in found]}
    options.json.write_text(json.dumps(content, indent=2) + "\n")
    progress(f"the figures are in {options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
