"""Both programs on a virtual clock: always the same 500 seeds here, 10,000 in `make faults`; and the oracle itself."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from agent.outbox.contract import NORMAL, Outbox
from agent.outbox.lanes import Limits
from protocols.uplink.presence import Presence, presence
from tests.simulation import faults
from tests.simulation.oracle import Account, Broken, check
from tests.simulation.run import run_story
from tests.simulation.world import Scenario, World, scenario

A, B = ("m", "e", 1), ("m", "e", 2)


@pytest.mark.timeout(600)
def test_nothing_is_lost_or_doubled_whatever_happens() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "500"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    assert "none broken" in done.stdout


def taken() -> Account:
    account = Account()
    account.note(A, [1, 2])
    account.note(B, [3])
    return account


def test_what_is_stored_once_is_well() -> None:
    assert check(taken(), {"m": Counter([1, 2, 3])}, set(), set(), set())["readings"] == 3


@pytest.mark.parametrize(
    ("stored", "missing", "words"),
    [
        ([1, 2], [], "neither stored nor declared"),
        ([1, 2, 2, 3], [], "more than once"),
        ([1, 2, 3, 4], [], "never taken"),
        ([1, 2, 3], [B], "still missing"),
    ],
)
def test_what_breaks_the_promise_is_told(stored: list[int], missing: list[tuple[str, str, int]], words: str) -> None:
    with pytest.raises(Broken, match=words):
        check(taken(), {"m": Counter(stored)}, set(), set(missing), set())


def test_what_was_declared_is_no_loss() -> None:
    assert check(taken(), {"m": Counter([1, 2])}, {B}, set(), set())["declared"] == 1


def test_a_dead_letter_breaks_it() -> None:
    with pytest.raises(Broken, match="dead letters"):
        check(taken(), {"m": Counter([1, 2, 3])}, set(), set(), {3})


def test_a_number_is_given_once() -> None:
    account = taken()
    account.undone.add(A)
    with pytest.raises(Broken, match="given twice"):
        account.note(A, [7])


def _no_grace(chance: random.Random) -> Scenario:
    """What is confirmed is let go of at once."""
    limits = Limits(bytes=1 << 30, grace_us=0)
    return replace(scenario(chance), period_s=1.0, batch_s=0.0, queue_max=1000, limits=limits, priorities=(NORMAL,))


def test_a_database_put_back_to_before_an_epoch_that_is_over_hears_what_is_gone() -> None:
    """All of the epoch was confirmed and let go of, and the machine was booted since: nobody has those numbers."""

    async def story(world: World) -> None:
        await asyncio.sleep(10)
        await faults.store_backed_up(world)
        await asyncio.sleep(30)
        await faults.machine_booted(world)
        await asyncio.sleep(60)
        assert world.worker is not None
        assert len(world.lanes()) == 2
        assert len(await world.worker.call(Outbox.held)) == 1, "the epoch before the boot is not over"
        await faults.store_restored(world)
        await asyncio.sleep(60)

    assert run_story(1, _no_grace, story)["declared"] > 20


def test_a_database_that_never_heard_of_an_epoch_hears_of_it_when_it_is_over() -> None:
    """As above, with several epochs that began after the backup was made, and of which nothing was stored for long."""

    async def story(world: World) -> None:
        await faults.store_backed_up(world)
        for _ in range(4):
            await asyncio.sleep(30)
            await faults.machine_booted(world)
        await asyncio.sleep(1200)
        await faults.store_restored(world)

    assert run_story(2, _no_grace, story)["declared"] > 50


def test_a_new_disk_and_a_clock_that_is_not_set_are_no_reason_not_to_be_heard() -> None:
    """The receiver knows of the gateway only the will of a session that is higher than all that follow."""

    async def story(world: World) -> None:
        await faults.store_backed_up(world)
        await asyncio.sleep(10)
        await world.kill_agent()
        await faults.store_restored(world)
        world.clock.skew_s = -faults.YEARS_S
        await faults.disk_deleted(world)
        await asyncio.sleep(30)
        [gateway] = world.store.gateways()
        assert presence(gateway.heard, now_us=world.now_us(), listening_since_us=0) is Presence.ONLINE
        assert gateway.heard.session < 1_780_000_000

    assert run_story(3, _no_grace, story)["readings"] > 20
