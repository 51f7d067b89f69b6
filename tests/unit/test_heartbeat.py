"""The heartbeat's figures: what goes in comes out in the right place, and within what a receiver takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.clock import kernel_says
from agent.heartbeat import (
    DROPPED_TOLD_MAX,
    RATE_SAMPLES,
    REASON_MAX,
    Figures,
    FillRate,
    build,
    internet,
    room_bytes,
)
from agent.outbox.contract import Dropped, Held, Lane, OutboxStats
from agent.poller import DeviceState
from agent.uplink.track import Sent
from protocols.uplink.status import OTHERS_MAX, STATUS_BYTES_MAX, Clock, Status, decode

PRESS, OVEN = Lane("press", "00ff"), Lane("oven", "00ff")
NOW_US = 1_700_000_000_123_456
FIGURES = Figures(
    thing="gw-1",
    version="1.2.3",
    session=12,
    epoch="00ff",
    instance="abcdef",
    host="gateway-7",
    now_us=NOW_US,
    uptime_s=3600.9,
    broker_host="broker.example.com",
    stats=OutboxStats(
        batches=3,
        bytes=12_345,
        limit_bytes=1 << 30,
        oldest_us=NOW_US - 61_999_999,
        dropped=4,
        kept_bytes=99,
        dropped_readings=400,
    ),
    full_in_s=77,
    held={PRESS: Held(120, ((118, 120),), dropped=(Dropped(3, 9, "outbox full"),)), OVEN: Held(5)},
    sent={PRESS: Sent(119, 120)},
    devices={
        "plc-1": ("press", DeviceState("ok", NOW_US - 5_000_000, "", 42)),
        "plc-2": ("oven", DeviceState("away", NOW_US, "plc-2: no answer", 7, failures=3)),
    },
    readings_lost=2,
    clock=Clock(synchronised=True),
    config_hash="abcd",
    certificate_days_left=17,
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
    assert (press.last_seq, press.sent_seq, press.sent_highest, press.dropped) == (
        120,
        119,
        120,
        [(3, 9, "outbox full")],
    )
    assert (oven.last_seq, oven.sent_seq, oven.dropped) == (5, 0, [])
    plc = status.devices["plc-2"]
    assert (plc.machine, plc.state, plc.since, plc.reason, plc.readings) == (
        "oven",
        "away",
        NOW_US // 1000,
        "plc-2: no answer",
        7,
    )
    assert (status.dropped_count, status.dropped_readings) == (4, 402)
    assert (status.instance, status.host, status.certificate_days_left) == ("abcdef", "gateway-7", 17)
    assert buffer.kept_bytes == 99
    assert status.others == {}
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
    clock = told(clock=Clock(synchronised=synchronised)).clock
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
        held={PRESS: Held(2, ((1, 2),), dropped=dropped)},
    )
    assert status.devices["plc-1"].reason == "x" * REASON_MAX
    assert len(status.machines["press"].dropped) == DROPPED_TOLD_MAX
    assert status.machines["press"].dropped[0] == (2, 2, "outbox full")
    many = {f"device-{at}": ("press", DeviceState("away", NOW_US, "no answer within 1 s " * 3)) for at in range(300)}
    assert len(build(replace(FIGURES, devices=many)).encode()) < STATUS_BYTES_MAX


def test_other_epochs_are_told_beside_the_present_one() -> None:
    """Another priority's, and those of an earlier life."""
    high, old = Lane("press", "11"), Lane("oven", "22")
    dropped = (Dropped(2, 2, "gone"),)
    status = told(held={PRESS: Held(9), high: Held(7), old: Held(3, dropped=dropped)}, sent={high: Sent(6, 7)})
    assert status.machines.keys() == {"press"}
    assert {name: {epoch: one.last_seq for epoch, one in of.items()} for name, of in status.others.items()} == {
        "press": {"11": 7},
        "oven": {"22": 3},
    }
    assert status.others["press"]["11"].sent_seq == 6
    assert status.others["oven"]["22"].dropped == [(2, 2, "gone")]


def test_of_too_many_epochs_those_go_first_that_somebody_waits_for() -> None:
    idle = {Lane("press", f"{at:04x}"): Held(1) for at in range(OTHERS_MAX + 5)}
    waiting = {Lane("press", f"{at:04x}"): Held(1, ((1, 1),)) for at in range(100, 103)}
    others = told(held={**idle, **waiting}).others["press"]
    assert len(others) == OTHERS_MAX
    assert {lane.epoch for lane in waiting} <= others.keys()


def test_epochs_that_are_over_are_told_as_sent_whole_where_there_is_room() -> None:
    formers = {Lane("press", f"{at:04x}"): at for at in range(1, OTHERS_MAX + 5)} | {Lane("oven", "22"): 9}
    others = told(held={PRESS: Held(9), Lane("press", "11"): Held(7)}, formers=formers).others
    assert list(others["press"]) == ["11", *(f"{at:04x}" for at in range(1, OTHERS_MAX))]
    [one] = others["oven"].values()
    assert (one.last_seq, one.sent_seq, one.sent_highest, one.dropped) == (9, 9, 9, [])


def test_a_drivers_words_are_never_what_stops_the_heartbeat() -> None:
    status = told(devices={"plc-1": ("press", DeviceState("away", NOW_US, "half \ud800 a\x00character\n"))})
    assert status.devices["plc-1"].reason == "half ? a\x00character\n"


# --- how long the buffer lasts ---------------------------------------------------------------------------------------


def test_the_time_left_is_the_room_at_the_rate_at_which_batches_come() -> None:
    rate = FillRate()
    assert rate.lasts_s(1000) is None
    rate.stored(0.0, 0)
    assert rate.lasts_s(1000) is None, "nothing to compare with"
    rate.stored(10.0, 100)
    assert rate.lasts_s(1000) == 100
    assert rate.lasts_s(1000) == 100, "asking changes nothing"
    assert rate.lasts_s(0) == 0
    rate.stored(20.0, 100)
    assert rate.lasts_s(1000) == 200


def test_where_nothing_comes_it_lasts_for_ever() -> None:
    rate = FillRate()
    for at in range(4):
        rate.stored(10.0 * at, 500)
    assert rate.lasts_s(1000) is None


def test_two_samples_at_once_say_nothing() -> None:
    rate = FillRate()
    rate.stored(5.0, 0)
    rate.stored(5.5, 900)
    assert rate.lasts_s(1000) is None


def test_what_was_long_ago_is_forgotten() -> None:
    rate = FillRate()
    rate.stored(0.0, 0)
    for at in range(1, 2 * RATE_SAMPLES):
        rate.stored(4.0 * at, 1_000_000 + 400 * at)
    assert rate.lasts_s(1000) == 10


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 2**40)), max_size=80), st.integers(0, 2**40))
def test_no_figures_make_it_fail(samples: list[tuple[float, int]], room: int) -> None:
    rate, now_s, ever = FillRate(), 0.0, 0
    for step_s, more in samples:
        now_s, ever = now_s + step_s, ever + more
        rate.stored(now_s, ever)
        left = rate.lasts_s(room)
        assert left is None or left >= 0


@pytest.mark.parametrize(
    ("waiting", "kept", "disk_free", "leave_free", "room"),
    [
        (0, 0, None, 0, 1000),
        (300, 0, None, 0, 700),
        (300, 600, None, 0, 700),  # what is kept gives way
        (300, 0, 5000, 0, 700),
        (300, 0, 100, 0, 100),
        (300, 200, 100, 0, 300),  # its place in the file is used again
        (300, 0, 5000, 4900, 100),
        (300, 0, 100, 4900, 0),
        (1300, 0, None, 0, 0),
    ],
)
def test_the_room_is_bounded_by_the_limit_and_by_the_disk(
    waiting: int, kept: int, disk_free: int | None, leave_free: int, room: int
) -> None:
    stats = OutboxStats(1, waiting, 1000, None, 0, kept_bytes=kept, disk_free_bytes=disk_free)
    assert room_bytes(stats, leave_free) == room


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
    assert kernel_says() in (True, False, None)
