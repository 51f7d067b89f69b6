"""The simulated plant's signals, as functions of time, and the driver in memory's handles."""

from __future__ import annotations

import asyncio
import math
from itertools import pairwise

import pytest

from protocols.field import memory, simulated
from protocols.field.contract import DeviceTimeout, Group, Quality, Value, ValueType

START_US = 1_700_000_000_000_000


def over(settings: simulated.TagSettings, seconds: int, seed: int = 1, step_s: float = 1.0) -> list[Value]:
    """The signal at each step."""
    times = [START_US + int(n * step_s * 1e6) for n in range(int(seconds / step_s))]
    return [simulated.value_at(settings, seed, time_us) for time_us in times]


def floats(values: list[Value]) -> list[float]:
    assert all(type(value) is float for value in values)
    return [value for value in values if isinstance(value, float)]


@pytest.mark.parametrize("signal", ["sine", "ramp", "random_walk"])
def test_signals_stay_within_their_limits_and_move(signal: simulated.Signal) -> None:
    settings = simulated.TagSettings(name="t", signal=signal, low=-10, high=30, period_s=60)
    values = floats(over(settings, 600))
    assert -10 <= min(values) < max(values) <= 30
    assert len(set(values)) > 30


def test_a_sine_comes_round_each_period_and_reaches_its_limits() -> None:
    values = floats(over(simulated.TagSettings(name="t", low=0, high=100, period_s=60, decimals=6), 120))
    assert values[:60] == pytest.approx(values[60:], abs=1e-4)
    assert min(values) < 0.5 and max(values) > 99.5


def test_a_random_walk_does_not_jump() -> None:
    settings = simulated.TagSettings(name="t", signal="random_walk", low=0, high=1, period_s=60, decimals=6)
    values = floats(over(settings, 600, step_s=0.1))
    assert max(abs(b - a) for a, b in pairwise(values)) < 0.05


def test_a_ramp_rises_and_falls_back_once_a_period() -> None:
    values = floats(over(simulated.TagSettings(name="t", signal="ramp", period_s=60), 600))
    assert sum(b < a for a, b in pairwise(values)) == 10


def test_a_square_is_true_half_of_the_time() -> None:
    values = over(simulated.TagSettings(name="t", signal="square", period_s=60), 600)
    assert {type(value) for value in values} == {bool}
    assert values.count(True) == pytest.approx(300, abs=10)


def test_a_counter_counts_by_one_and_begins_again() -> None:
    values = over(simulated.TagSettings(name="t", signal="counter", low=1, high=7, period_s=2), 60, step_s=2)
    assert {type(value) for value in values} == {int}
    first = values[0]
    assert isinstance(first, int)
    assert values == [(first - 1 + n) % 7 + 1 for n in range(30)]


def test_the_same_moment_shows_the_same_and_another_seed_or_name_something_else() -> None:
    settings = simulated.TagSettings(name="t", signal="random_walk")
    assert over(settings, 60) == over(settings, 60)
    assert over(settings, 60) != over(settings, 60, seed=2)
    assert over(settings, 60) != over(simulated.TagSettings(name="u", signal="random_walk"), 60)


async def test_a_scan_shows_one_moment() -> None:
    tags = tuple(simulated.tag(simulated.TagSettings(name=name, signal="ramp", decimals=9)) for name in "ab")
    device = simulated.SimulatedDriver("mixer", seed=3, clock=lambda: START_US * 1000)
    await device.connect()
    (scan,) = await device.read(Group("mixer", "all", 1.0, tags))
    assert scan.time_us == START_US
    assert scan.values == [simulated.value_at(tag.address, 3, START_US) for tag in tags]
    assert all(isinstance(value, float) and math.isfinite(value) for value in scan.values)


@pytest.mark.parametrize(
    "keys", [{"low": 2.0, "high": 1.0}, {"signal": "text"}, {"signal": "sine", "text": "x"}], ids=str
)
def test_contradictions_of_a_simulated_tag(keys: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="tag t: "):
        simulated.tag(simulated.TagSettings.model_validate({"name": "t", **keys}))


def press() -> tuple[memory.MemoryDriver, Group]:
    tags = (
        memory.tag(memory.TagSettings(name="temperature", value=20)),
        memory.tag(memory.TagSettings(name="parts", type=ValueType.UINT)),
    )
    group = Group("press", "all", 1.0, tags)
    return memory.MemoryDriver("press", [group], clock=lambda: START_US * 1000), group


async def test_memory_shows_what_was_set() -> None:
    device, group = press()
    await device.connect()
    (scan,) = await device.read(group)
    assert (scan.values, scan.quality, scan.time_us) == ([20.0, 0], None, START_US)
    device.set("temperature", 71)
    device.fail("parts", Quality.BAD_DEVICE_FAILURE, "the sensor is broken")
    (scan,) = await device.read(group)
    assert scan.values == [71.0, None]
    assert scan.quality == [Quality.GOOD, Quality.BAD_DEVICE_FAILURE]
    assert scan.reasons == {1: "the sensor is broken"}
    device.set("parts", 5)
    (scan,) = await device.read(group)
    assert (scan.values, scan.quality) == ([71.0, 5], None)


async def test_memory_raises_the_fault_it_was_given_until_restored() -> None:
    device, group = press()
    await device.connect()
    device.cut(DeviceTimeout("press: no answer."))
    with pytest.raises(DeviceTimeout, match="no answer"):
        await device.read(group)
    with pytest.raises(DeviceTimeout):
        await device.connect()
    device.restore()
    await device.connect()
    assert len(await device.read(group)) == 1
    assert device.connects == 2


async def test_memory_can_be_slow() -> None:
    device, group = press()
    await device.connect()
    device.hold()
    reading = asyncio.create_task(device.read(group))
    await asyncio.sleep(0)
    device.set("parts", 9)
    assert not reading.done()
    device.release()
    (scan,) = await reading
    assert scan.values[1] == 9


def test_memory_takes_no_values_of_another_type() -> None:
    device, _ = press()
    with pytest.raises(ValueError, match=r"tag parts: 1\.5 is not of type uint; give one of type int"):
        device.set("parts", 1.5)
    with pytest.raises(ValueError, match="tag t: True is not of type int"):
        memory.tag(memory.TagSettings(name="t", type=ValueType.INT, value=True))
    with pytest.raises(KeyError):
        device.set("nothing", 1)
    with pytest.raises(KeyError):
        device.fail("nothing", Quality.BAD, "x")
