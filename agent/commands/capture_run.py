"""Recording for `holdfast capture`: through the running agent where there is one, otherwise by polling as it would."""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent import drivers
from agent.capture import control
from agent.capture.control import Request, State
from agent.capture.recorder import Recorder, RecorderFailed, header_of
from agent.capture.service import AFTER_FAULT_S
from agent.poller import Poller
from agent.settings import Configuration, Device
from protocols.field.contract import Scan
from protocols.program.console import TEMPORARY, UNAVAILABLE, USAGE, Failure
from protocols.program.tasks import Tasks
from protocols.program.terminal import Progress, ago, progress, size

ANSWER_S = 10.0
"""So long may the agent take to begin or end a recording; it looks once a second."""

LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be recorded, how long and how much."""

    configuration: Configuration
    device: Device
    seconds: float
    limit_bytes: int
    until_fault: bool
    out: Path | None

    @property
    def data_dir(self) -> str:
        return self.configuration.settings.data_dir

    def file_name(self) -> str:
        return f"{self.device.name}-{time.strftime('%Y%m%d-%H%M%S')}.hfcap"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`size`: of the file, in bytes; 0 where there is none."""

    path: Path
    state: State
    size: int


def _outcome(path: Path, state: State) -> Outcome:
    with suppress(FileNotFoundError):
        return Outcome(path, state, path.stat().st_size)
    return Outcome(path, state, 0)


# --- through the running agent ---


def detached(job: Job) -> Path:
    """Ask the agent, and leave it to it. The file's path."""
    return control.recordings(job.data_dir) / _ask(job).name


async def by_agent(job: Job, stopping: asyncio.Event) -> Outcome:
    """Ask the agent, and wait until it is over or `stopping`."""
    request = _ask(job)
    with progress(f"recording {job.device.name}") as shown:
        state = await _state_of(job, request.name, ANSWER_S)
        if state is None:
            _withdraw(job)
            raise Failure("the running agent does not begin to record; see its log, and restart it", TEMPORARY)
        while not state.is_over and not stopping.is_set():
            left_s = request.until_s - time.time()
            if left_s < -ANSWER_S:  # it is gone, and nobody has started it again
                break
            _show(shown, state, max(0.0, left_s))
            await asyncio.sleep(LOOK_S)
            state = await _state_of(job, request.name, ANSWER_S) or state
    return await _ended(job, state)


async def stopped(job: Job, stopping: asyncio.Event) -> Outcome:
    """End what is being recorded of this device."""
    del stopping  # it takes a second
    request = control.load(control.request_path(job.data_dir), Request)
    if request is None or request.device != job.device.name:
        raise Failure(f"nothing of {job.device.name} is being recorded", USAGE)
    state = State(name=request.name, device=request.device, is_over=False)
    return await _ended(job, state)


async def _ended(job: Job, state: State) -> Outcome:
    """Withdraw the request, wait for the agent's last word, and put the file where it is wanted."""
    _withdraw(job)
    end_s = time.monotonic() + ANSWER_S
    while not state.is_over and time.monotonic() < end_s:
        await asyncio.sleep(LOOK_S)
        state = await _state_of(job, state.name, ANSWER_S) or state
    if not state.is_over:
        gone = "the agent does not answer any more; what it recorded until then can be read"
        state = state.model_copy(update={"trouble": gone})
    path = control.recordings(job.data_dir) / state.name
    if job.out is not None and path.exists():
        try:
            await asyncio.to_thread(shutil.copyfile, path, job.out)
        except OSError as error:
            raise Failure(f"{path} cannot be copied to {job.out} ({error.strerror})", UNAVAILABLE) from error
        path = job.out
    return _outcome(path, state)


def check_free(job: Job) -> None:
    """Raises Failure where the agent records already."""
    path = control.request_path(job.data_dir)
    try:
        earlier = control.load(path, Request)
    except OSError as error:
        raise Failure(f"{path} cannot be read ({error.strerror}); try again with sudo", UNAVAILABLE) from error
    if earlier is not None and earlier.until_s > time.time():
        until = time.strftime("%H:%M:%S", time.localtime(earlier.until_s))
        raise Failure(
            f"{earlier.device} is being recorded until {until}, and the agent records one device at a time; "
            f"end that with: holdfast capture {earlier.device} --stop",
            USAGE,
        )


def _ask(job: Job) -> Request:
    path = control.request_path(job.data_dir)
    try:
        until_s = time.time() + job.seconds
        request = Request(
            name=job.file_name(),
            device=job.device.name,
            until_s=until_s,
            limit_bytes=job.limit_bytes,
            until_fault=job.until_fault,
        )
        control.save(path, request, control.REQUEST_MODE)
    except OSError as error:
        why = f"the agent cannot be asked: {path} cannot be written ({error.strerror}); try again with sudo"
        raise Failure(why, UNAVAILABLE) from error
    return request


def _withdraw(job: Job) -> None:
    with suppress(FileNotFoundError):
        control.request_path(job.data_dir).unlink()


async def _state_of(job: Job, name: str, patience_s: float) -> State | None:
    """The agent's word on this recording; None where it says nothing in time."""
    end_s = time.monotonic() + patience_s
    while True:
        state = control.load(control.state_path(job.data_dir), State)
        if state is not None and state.name == name:
            return state
        if time.monotonic() > end_s:
            return None
        await asyncio.sleep(LOOK_S)


# --- by polling the device here ---


async def by_command(job: Job, stopping: asyncio.Event) -> Outcome:
    """Poll as the agent would, with its own poller, until it is over or `stopping`."""
    path = job.out or Path(job.file_name())
    recorder = Recorder(path, header_of(job.configuration, job.device), job.limit_bytes)
    driver = drivers.make(job.device, job.device.groups, job.data_dir)
    try:
        await recorder.open()
    except RecorderFailed as error:
        raise Failure(str(error), UNAVAILABLE) from error
    poller = Poller(job.device.name, driver, job.device.groups, _nothing)
    recorder.listen_to(driver, poller)
    with progress(f"recording {job.device.name}") as shown:
        writing = asyncio.create_task(recorder.run(), name="capture")
        try:
            async with Tasks(stopping, grace_s=0) as tasks:
                tasks.spawn(f"device {job.device.name}", poller.run())
                await _watch(job, recorder, shown, stopping)
        finally:
            writing.cancel()
            await asyncio.wait([writing])
    return _outcome(path, _said(job, recorder, path))


async def _watch(job: Job, recorder: Recorder, shown: Progress, stopping: asyncio.Event) -> None:
    end_s = time.monotonic() + job.seconds
    while (left_s := end_s - time.monotonic()) > 0 and not stopping.is_set() and not recorder.trouble:
        if job.until_fault and recorder.faults:
            end_s = min(end_s, time.monotonic() + AFTER_FAULT_S)
        _show(shown, _said(job, recorder, recorder.path), left_s)
        await asyncio.sleep(min(LOOK_S, left_s))


def _nothing(scan: Scan) -> None:
    """What was read is not what is wanted here."""
    del scan


def _said(job: Job, recorder: Recorder, path: Path) -> State:
    return recorder.state(path.name, job.device.name, is_over=True)


def _show(shown: Progress, state: State, left_s: float) -> None:
    shown.update(f"{state.requests:,} requests, {size(state.bytes)}, {state.faults:,} faults; {ago(left_s)} left")
