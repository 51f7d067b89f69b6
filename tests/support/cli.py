"""Runs a command line many times without paying for its imports each time.

    with prepared("agent.cli", "agent.settings") as program:
        ended = program.run(["check", "--json"], cwd=folder, environ={...})
        ended.code, ended.out, ended.err

One process imports the modules and forks for every command, so each is a process of its own, with its own working
directory, environment, output and exit code, and nothing of one is left for the next.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
WAIT_S = 30.0

_PROGRAM = """
import importlib, json, os, sys
names = json.loads(sys.argv[1])
modules = [importlib.import_module(name) for name in names]
if hasattr(modules[0], "COMMANDS"):
    modules[0].app()  # imports every command
print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        os.chdir(job["cwd"])
        os.environ.clear()
        os.environ.update(job["environ"])
        for number, path in ((0, os.devnull), (1, job["out"]), (2, job["err"])):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), number)
        sys.argv[1:] = job["arguments"]
        code = 1
        try:
            code = modules[0].main()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


class Prepared:
    """A program whose modules are imported; `run` is one command of it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, arguments: Sequence[str], *, cwd: Path, environ: Mapping[str, str]) -> Ended:
        """Run one command to its end. Its stdin is empty, its output goes into files."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            job = {"arguments": list(arguments), "cwd": str(cwd), "environ": dict(environ)}
            self._process.stdin.write(json.dumps({**job, "out": str(out), "err": str(err)}) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            return Ended(code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))


@contextlib.contextmanager
def prepared(*modules: str) -> Iterator[Prepared]:
    """`modules`: the one with `main() -> int` first, then all that is worth importing once."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, json.dumps(modules)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield Prepared(process)
    finally:
        process.stdin.close()
        process.wait(WAIT_S)
        process.stdout.close()
