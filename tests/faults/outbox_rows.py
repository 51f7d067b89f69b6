"""Outboxes that are damaged, deleted, put back from an old copy, or alive twice."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.faults.line import Gateway, Line, Setup
from tests.faults.oracle import Verdict
from tests.faults.outboxes import databases
from tests.faults.stage import Row, Stage

Harm = Callable[[Path, random.Random], None]


def _harmed(harm: Harm) -> Callable[[Stage], Awaitable[Verdict]]:
    """A row where the agent is killed with batches waiting in its outbox, which is then harmed.

    What waited there is destroyed as far as the harm reaches, and may arrive as far as the agent can save it.
    Everything acquired before and afterwards must be there.
    """

    async def play(stage: Stage) -> Verdict:
        async with stage.line() as line:
            for _ in range(stage.count):
                await line.broker.kill()
                await line.pause(0.2, 1.5)
                await line.kill_agent(line.gateway)
                await asyncio.to_thread(line.note_destroyed, line.gateway)
                await asyncio.to_thread(harm, line.gateway.outbox, line.rng)
                await line.broker.start()
                line.gateway.service.start()
                line.injections += 1
                await line.recovers("after the outbox was harmed")
            return await stage.verdict(line)

    return play


def _flip(outbox: Path, rng: random.Random) -> None:
    """Some bits, in one of its files."""
    if (file := _one_of(outbox, rng)) is None:
        return
    size = file.stat().st_size
    with file.open("r+b") as content:
        for _ in range(rng.choice([1, 8, 200])):
            at = rng.randrange(size)
            content.seek(at)
            byte = content.read(1)[0]
            content.seek(at)
            content.write(bytes([byte ^ 1 << rng.randrange(8)]))


def _truncate(outbox: Path, rng: random.Random) -> None:
    if (file := _one_of(outbox, rng)) is None:
        return
    os.truncate(file, rng.choice([0, rng.randrange(file.stat().st_size)]))


def _delete(outbox: Path, rng: random.Random) -> None:
    if rng.random() < 0.5:
        shutil.rmtree(outbox)
    elif (file := _one_of(outbox, rng)) is not None:
        file.unlink()


def _one_of(outbox: Path, rng: random.Random) -> Path | None:
    """A database of the outbox, or its log. None where the agent died while it mended one: that is harm enough."""
    found = databases(outbox)
    logs = [log for path in found if (log := path.with_name(path.name + "-wal")).exists() and log.stat().st_size]
    return rng.choice([*found, *logs]) if found else None


async def put_back(stage: Stage) -> Verdict:
    """An old copy of the whole data directory, as from a backup of the gateway's disk, takes the place of the new."""
    async with stage.line() as line:
        gateway = line.gateway
        copy = stage.folder / "copy"
        for _ in range(stage.count):
            await line.kill_agent(gateway)
            await asyncio.to_thread(_copy_disk, gateway.data_dir, copy)
            gateway.service.start()
            await line.flows("after the copy was made")
            await line.pause(0, 1.5)
            if line.rng.random() < 0.5:
                await asyncio.to_thread(line.receiver.kill)  # so that something waits in the outbox that will be gone
                await line.pause(0.2, 1.0)
            await line.kill_agent(gateway)
            await asyncio.to_thread(_put_back, line, gateway, copy)
            line.receiver.start()
            gateway.service.start()
            line.injections += 1
            await line.recovers("after an old copy was put back")
        return await stage.verdict(line)


def _copy_disk(source: Path, target: Path) -> None:
    """Everything but sockets, of which a copy means nothing."""

    def sockets(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if (Path(folder) / name).is_socket()]

    shutil.copytree(source, target, ignore=sockets)


def _put_back(line: Line, gateway: Gateway, copy: Path) -> None:
    """What waits in the new outbox and is neither stored nor in the old one is destroyed, and only that."""
    line.note_destroyed(gateway)
    shutil.rmtree(gateway.data_dir)
    copy.rename(gateway.data_dir)
    still_there = gateway.look()
    for source in gateway.sources:
        source.destroyed -= still_there[source.name]


async def cloned(stage: Stage) -> Verdict:
    """A gateway's disk is copied and runs twice at once under the same name, each with devices of its own.

    At the end the operator does what docs/operations.md says: the clone becomes a gateway of its own. Everything that
    either of them acquired must arrive.
    """
    async with stage.line(Setup(clones=True)) as line:
        [gateway], [clone] = line.gateways, line.clones
        for _ in range(stage.count):
            await line.kill_agent(gateway)
            if not clone.data_dir.exists():  # later on the same clone is switched on again
                await asyncio.to_thread(_copy_disk, gateway.data_dir, clone.data_dir)
                line.write_agent(clone)
            both = [gateway.service, clone.service]
            line.rng.shuffle(both)
            for service in both:
                service.start()
                await line.pause(0, 2)
            line.injections += 1
            await line.pause(15, 25)
            await line.kill_agent(clone)
        clone.thing = f"{gateway.thing}-b"
        line.write_agent(clone)
        clone.service.start()
        await line.recovers("of the first gateway, when it is alone")
        line.recoveries.append(await line.flows("of the clone under its own name", gateways=[clone]))
        return await stage.verdict(line)


ROWS = (
    Row("outbox-flipped", "bits of the outbox's files change while it waits for the broker", _harmed(_flip), 30, 1,
        dead_letters=True, destroys="bits of its files were flipped", exits=True),
    Row("outbox-truncated", "the outbox's files are cut short", _harmed(_truncate), 20, 0,
        destroys="its files were cut short", exits=True),
    Row("outbox-deleted", "the outbox, or one of its files, is deleted", _harmed(_delete), 20, 0,
        destroys="the directory, or a file of it, was deleted"),
    Row("outbox-put-back", "an old copy of the data directory takes the place of the new", put_back, 15, 1,
        destroys="an old copy was put back"),
    Row("cloned-gateway", "a gateway's disk is copied, and both run under one name", cloned, 3, 0),
)  # fmt: skip
