"""Which lane has which number, a second time, in a text file beside the database.

Rows name their lane by its number only. Where the database is damaged so that a lane's record is lost, this is how its
batches still find their machine and epoch; where all of it is lost, this is which lanes there were. A line for each,
added when it is made; the last one for a number counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from agent.outbox import durable
from agent.outbox.contract import Lane
from agent.outbox.lane import LaneState
from protocols.program.logs import get_logger

_log = get_logger(part="outbox")


class Register:
    """Not being able to write is told and no more: it is a second copy."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, states: Iterable[LaneState]) -> None:
        """Durable when it returns."""
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND, 0o600)
            try:
                os.write(handle, b"\n" + _lines(states))  # the line before may have been cut short by a crash
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            self._tell(error)

    def begin(self, states: Iterable[LaneState]) -> None:
        """Anew, with these only, where it does not say just that."""
        states = list(states)
        if self.read() == {state.number: (state.name, state.priority) for state in states}:
            return
        try:
            durable.replace(self._path, _lines(states))
        except OSError as error:
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        _log.warning("the outbox could not write its register of lanes", path=str(self._path), error=error.strerror)

    def read(self) -> dict[int, tuple[Lane, int]]:
        """number → (lane, priority); lines that are not whole are passed over."""
        try:
            lines = self._path.read_text(errors="replace").splitlines()
        except OSError:
            return {}
        found = {}
        for line in lines:
            try:
                number, machine, epoch, priority = json.loads(line)
            except ValueError:
                continue
            found[int(number)] = Lane(str(machine), str(epoch)), int(priority)
        return found


def _lines(states: Iterable[LaneState]) -> bytes:
    return "".join(json.dumps([state.number, *state.name, state.priority]) + "\n" for state in states).encode()
