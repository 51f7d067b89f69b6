"""Child processes of a run: started with a log each, stopped by their id, never left behind."""

from __future__ import annotations

import compileall
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.machine import Cost, tree_cost

HOST = "127.0.0.1"
ROOT = Path(__file__).parent.parent


class RunFailed(Exception):
    """The run gives no figure; the text says why in one sentence."""


class Process:
    """One child process. Its output goes to `log`; what it is asked to stop with is SIGTERM, and SIGKILL after that."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, *, cwd: Path = ROOT, env: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self.started_us = time.time_ns() // 1000
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                cwd=cwd,
                env={**os.environ, **(env or {})},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_running(self) -> bool:
        return self._process.poll() is None

    def cost(self) -> Cost:
        """Of the process and all its descendants."""
        return tree_cost(self.pid)

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-600:].strip()

    def stop(self, patience_s: float = 90.0) -> None:
        """SIGTERM, and wait for the end; SIGKILL where that takes longer than `patience_s`."""
        if self.is_running():
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """SIGKILL, as in a power cut."""
        if self.is_running():
            self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop() if error is None else self.stop(5.0)


def python(name: str, module: str, words: Sequence[str], log: Path) -> Process:
    """A module of this project as a process of its own, started as fast as where it is installed."""
    _compile()
    return Process(name, [sys.executable, "-m", module, *words], log)


@cache
def _compile() -> None:
    """To byte code, as pip does. Where PYTHONDONTWRITEBYTECODE is set, each start would compile all of it anew."""
    for package in ("agent", "cloud", "protocols"):
        compileall.compile_dir(ROOT / package, quiet=1)


def carry_out(what: str, *commands: Sequence[str], cwd: Path = ROOT) -> None:
    """One command after another, to its end. Raises RunFailed with the last line of what the failed one said."""
    for command in commands:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().rpartition("\n")[2]
            raise RunFailed(f"{what} failed: {said[:200]}")


def wait_until(
    condition: Callable[[], bool], what: str, timeout_s: float, *alive: Process, pause_s: float = 0.02
) -> None:
    """Until it holds. Raises RunFailed where it does not in time, or where one of `alive` has ended."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        for process in alive:
            if not process.is_running():
                raise RunFailed(f"{process.name} ended by itself; it said: {process.said()}")
        if time.monotonic() > end_s:
            raise RunFailed(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(pause_s)


def free_ports(count: int) -> list[int]:
    """TCP ports of 127.0.0.1 that nobody listens on now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((HOST, 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
