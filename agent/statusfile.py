"""The agent's status as a small file, for `holdfast status`: what the heartbeat says, and how the link is."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocols.program.logs import get_logger
from protocols.uplink.status import Status

_log = get_logger(part="status")


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """`link`: one phrase; `trouble`: one sentence or empty. `written_s`: seconds since 1970."""

    status: dict[str, Any]
    link: str
    trouble: str
    written_s: float


async def write_status(path: Path, status: Status, link: str, trouble: str) -> None:
    """Replace the file at once, so that a reader never sees half of it. A full disk is told by the outbox, not here."""
    about = json.dumps({"link": link, "trouble": trouble, "written_s": time.time()})
    text = f'{{"status": {status.encode().decode()}, {about[1:]}'
    try:
        await asyncio.to_thread(_replace, path, text)
    except OSError as error:
        _log.debug("the status file could not be written", path=str(path), error=error.strerror)


def _replace(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def read_status(path: Path) -> AgentStatus | None:
    """None where there is no file, or not one of ours."""
    try:
        content = json.loads(path.read_text())
        return AgentStatus(content["status"], content["link"], content["trouble"], content["written_s"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
