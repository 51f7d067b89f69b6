"""From a line's tap to the file: happenings are packed in the event loop and written in a thread.

The loop never waits for the disk. What a slow disk does not take in time is bounded: the oldest blocks go, and the file
shows the gap by its numbers. A disk that fails ends the recording, and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

from agent.capture.control import State
from agent.capture.readings import encoded
from agent.capture.records import CONTENT_BYTES_MAX, CaptureError, Header, Packer
from agent.capture.ring import Ring
from agent.poller import Poller
from agent.settings import Configuration, Device, without_secrets
from protocols.field.contract import Driver, FieldError, Happening, Scan, Tapped
from protocols.program.version import program_version

FLUSH_S = 0.5
WAITING_BLOCKS_MAX = 256  # 1 MiB
FAULTS = frozenset({Happening.NOT_OPENED, Happening.TIMED_OUT, Happening.LOST, Happening.AWAY})
"""What is a fault whatever the bytes say."""


def header_of(configuration: Configuration, device: Device) -> Header:
    """The header of a file that records this device from now on."""
    link = getattr(device.settings, "link", None)
    transport = "" if link is None else str(link.transport)
    endpoint = str(getattr(device.settings, "endpoint", ""))
    if link is not None:
        endpoint = f"{link.host}:{link.port}" if link.port else str(link.host)
    written = next(one for one in configuration.settings.devices if one.name == device.name)
    plain = without_secrets(written.model_dump(mode="json"))
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return Header(transport, endpoint, f"holdfast {program_version()}", started, plain)


def deaf(driver: Driver, poller: Poller) -> None:
    """Nobody listens any more."""
    if isinstance(driver, Tapped):
        driver.listen(None)
    poller.listen(None)


class RecorderFailed(Exception):
    """The file cannot be made. The message is a sentence."""


class Recorder:
    """One recording: `open`, then `tap` is what a driver's `listen` wants; `run` writes until it is cancelled.

    `records`, `requests`, `bytes` and `faults` count what was heard. `trouble`: a sentence once the disk has failed,
    which ends `run`.
    """

    def __init__(self, path: Path, header: Header, limit_bytes: int) -> None:
        self.path = path
        self.records = 0
        self.requests = 0
        self.bytes = 0
        self.faults = 0
        self.trouble = ""
        self._header = header
        self._limit_bytes = limit_bytes
        self._packer = Packer()
        self._ring: Ring | None = None
        self._base_us = time.time_ns() // 1000 - time.monotonic_ns() // 1000

    def tap(self, happening: Happening, content: bytes) -> None:
        """See `Tap`."""
        self.records += 1
        self.requests += happening is Happening.SENT
        self.bytes += len(content)
        self.faults += happening in FAULTS
        # By the steady clock: what is set while it records must not change the order or the delays.
        self._packer.add(happening, self._base_us + time.monotonic_ns() // 1000, content)
        if self._packer.waiting > WAITING_BLOCKS_MAX:
            self._packer.forget_oldest()

    def hear(self, heard: Scan | FieldError) -> None:
        """See `Ear`: for a driver whose line cannot be listened to."""
        if isinstance(heard, FieldError):
            self.tap(Happening.AWAY, str(heard).encode()[:CONTENT_BYTES_MAX])
            return
        for content in encoded(heard):
            self.tap(Happening.READ, content)

    def listen_to(self, driver: Driver, poller: Poller) -> None:
        """From now on: to the driver's line, or else to what the driver gives."""
        if isinstance(driver, Tapped):
            driver.listen(self.tap)
        else:
            poller.listen(self.hear)

    def state(self, name: str, device: str, *, is_over: bool) -> State:
        """What to say of it."""
        return State(
            name=name,
            device=device,
            is_over=is_over,
            records=self.records,
            requests=self.requests,
            bytes=self.bytes,
            faults=self.faults,
            trouble=self.trouble,
        )

    async def open(self) -> None:
        """Makes the file, or goes on with it where an earlier run began it. Raises RecorderFailed."""
        try:
            self._ring = await asyncio.to_thread(self._opened)
        except (OSError, CaptureError) as error:
            raise RecorderFailed(
                f"{self.path} cannot be written ({_why(error)}); check the directory, its rights and the disk"
            ) from error
        self._packer = Packer(self._ring.number)

    async def run(self) -> None:
        """Cancel it to end: what was heard until then is written first."""
        ring = self._ring
        if ring is None:
            raise RuntimeError("open it first")
        try:
            while not self.trouble:
                await asyncio.sleep(FLUSH_S)
                await self._flush(ring)
        finally:
            await self._flush(ring)
            ring.close()

    def _opened(self) -> Ring:
        if self.path.exists():
            return Ring.resume(self.path, self._limit_bytes)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return Ring.create(self.path, self._header, self._limit_bytes)

    async def _flush(self, ring: Ring) -> None:
        blocks = self._packer.take()
        if not blocks or self.trouble:
            return
        writing = asyncio.create_task(asyncio.to_thread(self._write, ring, blocks), name="capture file")
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])  # nobody may close the file under it
            raise

    def _write(self, ring: Ring, blocks: list[tuple[int, bytes]]) -> None:
        """In a thread."""
        try:
            ring.write(blocks)
        except OSError as error:
            self.trouble = f"{self.path} cannot be written ({_why(error)}); what was recorded until then can be read"


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
