"""Our programs as a service manager runs them: what ends by itself is started again, and every life is on record."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RESTART_S = 1.0  # systemd's RestartSec, shortened
END_PATIENCE_S = 150.0  # above the agent's drain time


def now_us() -> int:
    """CLOCK_MONOTONIC, which all processes of this machine share."""
    return time.monotonic_ns() // 1000


@dataclass
class Life:
    """One run of a program. `end`: running, killed, stopped (asked to), or exited (by itself). `end_us`: when told."""

    start_us: int
    end_us: int = 0
    end: str = "running"


class Service:
    """`python -m MODULE run --config CONFIG`, with the harness's environment and `environ` on top."""

    def __init__(self, name: str, module: str, config: Path, environ: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.config = config
        self.log = config.with_suffix(".log")
        self.environ = dict(environ or {})
        self.lives: list[Life] = []
        self._command: Sequence[str] = [sys.executable, "-m", module, "run", "--config", str(config)]
        self._process: subprocess.Popen[bytes] | None = None
        self._again_s = 0.0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exits(self) -> int:
        """How often it ended by itself."""
        return sum(life.end == "exited" for life in self.lives)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Harmless when it runs."""
        if self._process is not None:
            return
        environ = {key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"} | self.environ
        with self.log.open("ab") as log:
            self.lives.append(Life(now_us()))
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=environ)

    def kill(self) -> None:
        """SIGKILL, and wait for the end. Harmless when it does not run; then it is not started again, either."""
        process, self._process, self._again_s = self._process, None, 0.0
        if process is None:
            return
        self._ended("killed")
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait(END_PATIENCE_S)

    def stop(self) -> int:
        """SIGTERM, and wait; the exit status."""
        process, self._process, self._again_s = self._process, None, 0.0
        if process is None:
            return 0
        self._ended("stopped")
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            return process.wait(END_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(END_PATIENCE_S)
            raise AssertionError(f"{self.name} does not stop within {END_PATIENCE_S:.0f} s") from None

    def watch(self) -> None:
        """To be called now and then: starts it again, some time after it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
            self._ended("exited")
            self._again_s = time.monotonic() + RESTART_S
        elif self._process is None and self._again_s and time.monotonic() >= self._again_s:
            self._again_s = 0.0
            self.start()

    def said(self) -> str:
        """The whole log, of all lives."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _ended(self, how: str) -> None:
        self.lives[-1].end_us, self.lives[-1].end = now_us(), how
