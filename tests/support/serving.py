"""A command of `holdfast` that serves until it is stopped, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.cli import ROOT

HANG_S = 60.0


@asynccontextmanager
async def serving(folder: Path, *arguments: str) -> AsyncIterator[Any]:
    """Yields what it says with --json once it listens; then Ctrl-C, after which it must end well and say no more."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "agent.cli", *arguments, "--json"),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(HANG_S):
            lines = []
            while (line := await process.stdout.readline()) and line != b"}\n":
                lines.append(line)
        if not line:
            assert process.stderr is not None
            raise AssertionError((await process.stderr.read()).decode())
        yield json.loads(b"".join([*lines, line]))
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(HANG_S):
            out, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        assert b"Traceback" not in errors
        assert out == b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
