"""One seed: the world with its faults, until all is told. Raises Broken, with what happened."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog

from tests.simulation.clock import Clock, VirtualLoop
from tests.simulation.faults import FAULTS
from tests.simulation.oracle import Broken
from tests.simulation.world import Scenario, World, scenario

Story = Callable[[World], Awaitable[None]]


def run_seed(seed: int, *, verbose: bool = False) -> Counter[str]:
    """The figures of this seed. Raises Broken; what happened is in its notes."""
    return run_story(seed, scenario, _faults, verbose=verbose)


def run_story(
    seed: int, plan: Callable[[random.Random], Scenario], story: Story, *, verbose: bool = False
) -> Counter[str]:
    """Likewise, with what happens given."""
    chance = random.Random(seed)
    clock = Clock()
    with clock.installed(), _decided(chance), _silent(verbose):
        loop = VirtualLoop(clock, chance)
        asyncio.set_event_loop(loop)
        world = World(seed, clock, loop, chance, plan(chance))
        try:
            return loop.run_until_complete(_whole(world, story))
        except Exception as error:
            error.add_note(f"python -m tests.simulation --seed {seed} --verbose\n{world.plan}\n" + "\n".join(world.log))
            raise
        finally:
            loop.run_until_complete(world.end())
            loop.close()
            asyncio.set_event_loop(None)


async def _whole(world: World, story: Story) -> Counter[str]:
    await world.start_receiver()
    await world.start_agent()
    await story(world)
    world.say("heal")
    await world.heal()
    return world.verdict()


async def _faults(world: World) -> None:
    """Of all kinds, one after another and at once."""
    kinds, weights, _ = zip(*FAULTS, strict=True)
    needs = {kind: needed for kind, _, needed in FAULTS}
    busy: dict[str, asyncio.Task[None]] = {}
    while world.clock.now_s < world.plan.faulty_s:
        await asyncio.sleep(world.chance.expovariate(1 / world.plan.mean_s))
        [fault] = world.chance.choices(kinds, weights)
        if any(what in busy and not busy[what].done() for what in needs[fault]):
            continue
        world.say(fault.__name__)
        world.faults[fault.__name__] += 1
        task = asyncio.ensure_future(fault(world))
        busy |= dict.fromkeys(needs[fault], task)
        if not needs[fault]:
            await task
        world.check()
    for task in list(busy.values()):
        await task


@contextmanager
def _decided(chance: random.Random) -> Iterator[None]:
    """What the programs leave to chance, the seed decides."""
    state, token_hex = random.getstate(), secrets.token_hex
    random.seed(chance.getrandbits(64))
    secrets.token_hex = lambda nbytes=None: f"{chance.getrandbits(8 * (nbytes or 32)):0{2 * (nbytes or 32)}x}"
    try:
        yield
    finally:
        random.setstate(state)
        secrets.token_hex = token_hex


@contextmanager
def _silent(verbose: bool) -> Iterator[None]:
    """The programs' logs, only where they are wanted."""
    before = structlog.get_config()
    if not verbose:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        yield
    finally:
        structlog.configure(**before)


__all__ = ["Broken", "run_seed", "run_story"]
