"""The running agent's side of `holdfast capture`: once a second it looks whether somebody asks for a recording.

While nobody does, that is one stat of a file that is not there, in a wake-up that the agent has anyway (`look`), and
the drivers have no tap. While somebody does, the
polling goes on as ever: the tap puts bytes into memory, a thread writes them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from agent.bell import Bell
from agent.capture import control
from agent.capture.control import Request, State
from agent.capture.recorder import Recorder, RecorderFailed, deaf, header_of
from agent.capture.records import Header
from agent.poller import Poller
from agent.settings import Configuration
from protocols.field.contract import Driver
from protocols.program.logs import get_logger

LOOK_S = 1.0  # while it records
IDLE_S = 60.0  # between two looks of its own
AFTER_FAULT_S = 10.0  # what a device does after its fault belongs to it
RECORDINGS_MAX = 5

_log = get_logger(part="capture")


class CaptureService:
    """`run` for as long as the agent runs. `drivers` and `pollers`: by the devices' names."""

    def __init__(
        self, configuration: Configuration, drivers: Mapping[str, Driver], pollers: Mapping[str, Poller]
    ) -> None:
        self._configuration = configuration
        self._devices = {one.name: (one, drivers[one.name], pollers[one.name]) for one in configuration.devices}
        self._directory = control.recordings(configuration.settings.data_dir)
        self._request_path = control.request_path(configuration.settings.data_dir)
        self._state_path = control.state_path(configuration.settings.data_dir)
        self._bell = Bell()
        self._over = ""  # the name of what ended last: its request may not be removable

    async def run(self) -> None:
        """Records whatever is asked for, one device at a time."""
        while True:
            request = self._asked()
            if request is not None and request.name != self._over:
                await self._record(request)
            await self._bell.wait(IDLE_S)

    def look(self) -> None:
        """Called about once a second; `run` sees to it if there is a request."""
        if os.path.exists(self._request_path):  # noqa: PTH110  # a path object costs a multiple of it, every second
            self._bell.ring()

    def _asked(self) -> Request | None:
        try:
            return control.load(self._request_path, Request)
        except OSError as error:
            _log.warning("a request to record cannot be read", file=str(self._request_path), reason=error.strerror)
            return None

    async def _record(self, request: Request) -> None:
        if request.device not in self._devices:
            await self._refuse(request, "the running agent has no device of this name; see holdfast status")
            return
        device, driver, poller = self._devices[request.device]
        try:
            await self._record_line(request, header_of(self._configuration, device), driver, poller)
        except RecorderFailed as error:
            await self._refuse(request, str(error))

    async def _refuse(self, request: Request, trouble: str) -> None:
        await self._end(State(name=request.name, device=request.device, is_over=True, trouble=trouble))

    async def _record_line(self, request: Request, header: Header, driver: Driver, poller: Poller) -> None:
        """Raises RecorderFailed."""
        recorder = Recorder(self._directory / request.name, header, request.limit_bytes)
        await recorder.open()
        _log.info("recording", device=request.device, file=str(recorder.path))
        writing = asyncio.create_task(recorder.run(), name="capture")
        recorder.listen_to(driver, poller)
        ended = False
        try:
            await self._watch(request, recorder)
            ended = True
        finally:
            deaf(driver, poller)
            writing.cancel()
            await asyncio.wait([writing])
            if ended:  # otherwise the agent stops, and the next one goes on
                await self._end(recorder.state(request.name, request.device, is_over=True))
                _log.info("recorded", device=request.device, file=str(recorder.path), records=recorder.records)

    async def _watch(self, request: Request, recorder: Recorder) -> None:
        """Until it is over: by its time, by a fault, by who asked, or by the disk."""
        end_s = min(request.until_s, time.time() + control.SECONDS_MAX)
        while time.time() < end_s and not recorder.trouble and self._asked() == request:
            if request.until_fault and recorder.faults:
                end_s = min(end_s, time.time() + AFTER_FAULT_S)
            await self._save(recorder.state(request.name, request.device, is_over=False))
            await asyncio.sleep(LOOK_S)

    async def _end(self, state: State) -> None:
        self._over = state.name
        await self._save(state)
        with suppress(OSError):
            self._request_path.unlink(missing_ok=True)
        for path in self._recordings()[:-RECORDINGS_MAX]:
            with suppress(OSError):
                path.unlink()

    def _recordings(self) -> list[Path]:
        """The oldest first."""
        found = []
        for path in self._directory.glob("*.hfcap"):
            with suppress(OSError):
                found.append((path.stat().st_mtime, path))
        return [path for _, path in sorted(found)]

    async def _save(self, state: State) -> None:
        with suppress(OSError):  # a full disk is told by the outbox
            await asyncio.to_thread(control.save, self._state_path, state)
