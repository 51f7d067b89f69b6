"""A command in a pseudo-terminal of 80 columns, with somebody before it who answers."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.cli import ROOT

COLUMNS, LINES = 80, 40
WAIT_S = 30.0
INTERRUPT = "\x03"


@dataclass(frozen=True)
class Screen:
    """How the command ended, and all that it wrote."""

    code: int
    text: str

    @property
    def flat(self) -> str:
        """As one line, however it was wrapped."""
        return " ".join(self.text.split())

    @property
    def widest(self) -> int:
        """Cells of the longest line; what was written over on the same line counts once."""
        return max(len(piece) for line in self.text.splitlines() for piece in line.split("\r"))


async def in_terminal(
    folder: Path, *arguments: str, answers: Mapping[str, str] | None = None, program: str = "agent.cli"
) -> Screen:
    """The program with these arguments. `answers`: text to wait for → what is typed then; INTERRUPT is Ctrl-C."""
    return await asyncio.to_thread(_run, folder, (program, *arguments), dict(answers or {}))


def _run(folder: Path, arguments: tuple[str, ...], answers: dict[str, str]) -> Screen:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm", "NO_COLOR": "1"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""
    try:
        while piece := _read(ours):
            seen += piece
            text = seen.decode("utf-8", "replace")
            for question in [one for one in answers if one in " ".join(text.split())]:
                answer = answers.pop(question)
                if answer == INTERRUPT:
                    process.send_signal(signal.SIGINT)  # as the terminal itself would
                else:
                    os.write(ours, f"{answer}\n".encode())
        return Screen(process.wait(WAIT_S), seen.decode("utf-8", "replace").replace("\r\n", "\n"))
    finally:
        process.kill()
        process.wait(WAIT_S)
        os.close(ours)


def _read(terminal: int) -> bytes:
    """What is there; b"" once the other end is closed, which Linux reports as an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
