"""Everything that a report of commissioning says, asked for: the devices, the broker, this machine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from agent.certificate import CertificateError, first
from agent.clock import synchronised
from agent.commands.check_host import clock
from agent.commands.commission_trial import Trial
from agent.commands.device_trial import agent_is_alive
from agent.commands.findings import Mark, split
from agent.commands.greeting import greeted
from agent.derived import Board
from agent.toolbox.report import BrokerSheet, DeviceSheet, Report
from protocols.field.opcua_trust import fingerprint
from protocols.program.version import program_version
from protocols.uplink.link import LinkError

if TYPE_CHECKING:
    from agent.settings import Configuration, Device

RIVAL = (
    "the running agent holds a connection to each device, too; one that takes a single client refuses this trial: stop "
    "the agent for it"
)
AT_ONCE_MAX = 32
"""Endpoints that are asked at the same time."""


async def gathered(
    path: Path,
    configuration: Configuration,
    devices: Sequence[Device],
    by: str,
    reads: int,
    now: datetime,
    done: Callable[[], None],
) -> Report:
    """`path`: of the configuration, absolute. `done` is called after each read of a device."""
    source = configuration.settings.clock.synchronised
    time_is = clock(source, synchronised(source))
    broker, sheets = await asyncio.gather(_broker(configuration), _devices(configuration, devices, reads, done))
    gateway = configuration.settings.gateway.model_dump()
    return Report(
        gateway={**gateway, "host": socket.gethostname()},
        configuration={"file": str(path), "hash": configuration.hash},
        when=now.isoformat(timespec="seconds"),
        version=program_version(),
        by=by,
        broker=broker,
        devices=sheets,
        more_open=[f"clock: {time_is.text}; {time_is.fix}"] if time_is.mark is Mark.BAD else [],
        more_notes=list(_notes(configuration, devices, time_is.text if time_is.mark is Mark.NOTE else "")),
    )


async def _devices(
    configuration: Configuration, devices: Sequence[Device], reads: int, done: Callable[[], None]
) -> list[DeviceSheet]:
    """In the order of `devices`. Those of one endpoint share its connection, as in the agent, and are read in turn."""
    gate = asyncio.Semaphore(AT_ONCE_MAX)
    boards: dict[str, Board] = {}
    together: dict[str, list[Trial]] = {}
    trials = [Trial(configuration, device, boards.setdefault(device.machine, {})) for device in devices]
    for device, trial in zip(devices, trials, strict=True):
        together.setdefault(device.endpoint, []).append(trial)

    async def one_endpoint(those: Sequence[Trial]) -> None:
        async with gate, AsyncExitStack() as stack:
            for trial in those:
                await trial.connect(stack)
            for trial in those:
                await trial.run(reads, done)

    await asyncio.gather(*map(one_endpoint, together.values()))
    return [trial.sheet() for trial in trials]


async def _broker(configuration: Configuration) -> BrokerSheet:
    """One connection, and the certificates on it."""
    settings = configuration.settings.broker
    where = f"{settings.host}:{settings.port}"
    security = "none: nothing is encrypted" if settings.tls is None else "TLS"
    own = "" if settings.tls is None or settings.tls.cert_file is None else _fingerprint_of(settings.tls.cert_file)
    try:
        connected = await greeted(configuration.settings)
    except LinkError as error:
        trouble, fix = split(str(error).removeprefix(f"MQTT broker {where}: "), first=True)
        return BrokerSheet(where, security, "not reached", trouble, fix, client_sha256=own)
    seal = fingerprint(connected.certificate) if connected.certificate else ""
    return BrokerSheet(where, security, f"lets this gateway in, {connected.protocol}", "", "", seal, own)


def _fingerprint_of(path: Path) -> str:
    try:
        return fingerprint(first(path))
    except (CertificateError, OSError) as error:
        return f"not readable ({error})"


def _notes(configuration: Configuration, devices: Sequence[Device], clock_says: str) -> Iterator[str]:
    """What a person should know before signing."""
    if clock_says:
        yield f"clock: {clock_says}"
    if agent_is_alive(configuration):
        yield RIVAL
    left = len(configuration.devices) - len(devices)
    if left:
        yield f"{left} of the configuration's {len(configuration.devices)} devices were left out"
