"""The heartbeat's figures: what goes in comes out in the right place, and within what a receiver takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.heartbeat import DROPPED_TOLD_MAX, REASON_MAX, Figures, FillRate, build, clock_synchronised, internet
from agent.outbox.contract import Dropped, Held, OutboxStats
from agent.poller import DeviceState
from protocols.uplink.status import STATUS_BYTES_MAX, Status, decode

NOW_US = 1_700_000_000_123_456
FIGURES = Figures(
    thing="gw-1",
    version="1.2.3",
    session=12,
    epoch="00ff",
    now_us=NOW_US,
    uptime_s=3600.9,
    broker_host="broker.example.com",
    stats=OutboxStats(batches=3, bytes=12_345, limit_bytes=1 << 30, oldest_us=NOW_US - 61_999_999, dropped=4),
    full_in_s=77,
    held={"press": Held(118, 120, (Dropped(3, 9, "outbox full"),)), "oven": Held(6, 5)},
    sent={"press": 119},
    devices={
        "plc-1": ("press", DeviceState("ok", NOW_US - 5_000_000, "", 42)),
        "plc-2": ("oven", DeviceState("away", NOW_US, "plc-2: no answer", 7, failures=3)),
    },
    readings_lost=2,
    clock_synchronised=True,
    config_hash="abcd",
)


def told(**changed: Any) -> Status:
    """What a receiver reads of it."""
    return decode(build(replace(FIGURES, **changed)).encode())


def test_every_figure_is_in_its_place() -> None:
    status = told()
    assert (status.state, status.session, status.epoch, status.timestamp) == ("online", 12, "00ff", NOW_US // 1000)
    assert status.gateway is not None
    assert (status.gateway.thing_name, status.gateway.version, status.gateway.uptime_sec) == ("gw-1", "1.2.3", 3600)
    assert status.health is not None
    assert (status.health.internet, status.health.mqtt, status.health.plc_link) == ("ok", "ok", "degraded")
    buffer = status.health.buffer
    assert (buffer.mode, buffer.queued_messages, buffer.bytes, buffer.limit_bytes) == ("disk", 3, 12_345, 1 << 30)
    assert (buffer.oldest_sec, buffer.full_in_sec) == (61, 77)
    press, oven = status.machines["press"], status.machines["oven"]
    assert (press.last_seq, press.sent_seq, press.dropped) == (120, 119, [(3, 9, "outbox full")])
    assert (oven.last_seq, oven.sent_seq, oven.dropped) == (5, 0, [])
    plc = status.devices["plc-2"]
    assert (plc.machine, plc.state, plc.since, plc.reason, plc.readings) == (
        "oven",
        "away",
        NOW_US // 1000,
        "plc-2: no answer",
        7,
    )
    assert status.dropped_count == 6
    assert status.clock is not None
    assert status.clock.synchronised is True
    assert status.config_hash == "abcd"


def test_nothing_waiting_is_nothing_old() -> None:
    health = told(stats=OutboxStats(0, 0, 1 << 30, None, 0), full_in_s=None).health
    assert health is not None
    assert (health.buffer.oldest_sec, health.buffer.full_in_sec) == (None, None)


def test_a_clock_that_was_set_back_gives_no_negative_age() -> None:
    health = told(stats=replace(FIGURES.stats, oldest_us=NOW_US + 10_000_000)).health
    assert health is not None
    assert health.buffer.oldest_sec == 0


@pytest.mark.parametrize("synchronised", [True, False, None])
def test_what_the_system_says_of_its_clock(synchronised: bool | None) -> None:
    clock = told(clock_synchronised=synchronised).clock
    assert clock is not None
    assert clock.synchronised is synchronised


@pytest.mark.parametrize(
    ("states", "link"),
    [
        ([], "ok"),
        (["ok"], "ok"),
        (["ok", "starting"], "ok"),
        (["ok", "bad"], "degraded"),
        (["ok", "away"], "degraded"),
        (["bad"], "degraded"),
        (["bad", "away"], "degraded"),
        (["starting", "away"], "degraded"),
        (["away"], "down"),
        (["away", "away"], "down"),
    ],
)
def test_the_link_to_the_plant_is_down_only_when_every_device_is_away(states: list[str], link: str) -> None:
    health = told(devices={f"d{at}": ("m", DeviceState(state)) for at, state in enumerate(states)}).health
    assert health is not None
    assert health.plc_link == link


def test_the_worst_case_is_a_message_that_the_receiver_takes() -> None:
    """Long reasons are cut, and of endless dropped ranges the lowest are told; the rest when those are known."""
    dropped = tuple(Dropped(2 * n, 2 * n, "outbox full") for n in range(1, DROPPED_TOLD_MAX + 50))
    status = told(
        devices={"plc-1": ("press", DeviceState("away", NOW_US, "x" * 10_000))},
        held={"press": Held(1, 2, dropped)},
    )
    assert status.devices["plc-1"].reason == "x" * REASON_MAX
    assert len(status.machines["press"].dropped) == DROPPED_TOLD_MAX
    assert status.machines["press"].dropped[0] == (2, 2, "outbox full")
    many = {f"device-{at}": ("press", DeviceState("away", NOW_US, "no answer within 1 s " * 3)) for at in range(300)}
    assert len(build(replace(FIGURES, devices=many)).encode()) < STATUS_BYTES_MAX


def test_a_drivers_words_are_never_what_stops_the_heartbeat() -> None:
    status = told(devices={"plc-1": ("press", DeviceState("away", NOW_US, "half \ud800 a\x00character\n"))})
    assert status.devices["plc-1"].reason == "half ? a\x00character\n"


# --- how fast the buffer fills ---------------------------------------------------------------------------------------


def test_time_left_is_what_is_free_at_the_rate_so_far() -> None:
    rate = FillRate()
    assert rate.full_in_s(0.0, 0, 1000) is None  # nothing to compare with
    assert rate.full_in_s(10.0, 100, 1000) == 90
    assert rate.full_in_s(20.0, 200, 1000) == 80
    assert rate.full_in_s(30.0, 1000, 1000) == 0
    assert rate.full_in_s(40.0, 2000, 1000) == 0  # beyond the limit there is no time left, and none is owed


def test_a_buffer_that_drains_or_stands_still_is_not_filling() -> None:
    rate = FillRate()
    for at, held in enumerate([500, 500, 400, 100]):
        assert rate.full_in_s(10.0 * at, held, 1000) is None


def test_two_samples_at_once_say_nothing() -> None:
    rate = FillRate()
    rate.full_in_s(5.0, 0, 1000)
    assert rate.full_in_s(5.0, 500, 1000) is None
    assert rate.full_in_s(5.5, 900, 1000) is None


def test_what_was_long_ago_is_forgotten() -> None:
    rate = FillRate()
    rate.full_in_s(0.0, 1_000_000, 10_000_000)
    for at in range(1, 200):
        left = rate.full_in_s(10.0 * at, 1000 * at, 10_000_000)
    assert left == (10_000_000 - 199_000) / 100


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 2**40)), max_size=80), st.integers(0, 2**40))
def test_no_figures_make_it_fail(samples: list[tuple[float, int]], limit_bytes: int) -> None:
    rate, now_s = FillRate(), 0.0
    for step_s, held in samples:
        now_s += step_s
        left = rate.full_in_s(now_s, held, limit_bytes)
        assert left is None or left >= 0


# --- the internet, the clock -----------------------------------------------------------------------------------------

HOSTS: Mapping[str, str] = {
    "broker.example.com": "ok",
    "a1b2-ats.iot.eu-central-1.amazonaws.com": "ok",
    "8.8.8.8": "ok",
    "2606:4700::1111": "ok",
    "localhost": "unknown",
    "broker": "unknown",
    "broker.local": "unknown",
    "nas.lan": "unknown",
    "mqtt.plant.internal": "unknown",
    "127.0.0.1": "unknown",
    "::1": "unknown",
    "10.1.2.3": "unknown",
    "192.168.1.10": "unknown",
    "fd00::1": "unknown",
}


@pytest.mark.parametrize(("host", "expected"), HOSTS.items())
def test_only_a_broker_outside_the_plant_proves_the_internet(host: str, expected: str) -> None:
    assert internet(host) == expected
    health = told(broker_host=host).health
    assert health is not None
    assert health.internet == expected


def test_the_kernel_is_asked_and_answers_or_not() -> None:
    assert clock_synchronised() in (True, False, None)
