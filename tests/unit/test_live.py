"""What the running agent shows: latest values, rows, rates, the stations of the line."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agent import drivers, settings
from agent.findings import Mark
from agent.latest import Latest, Reading
from agent.live.line import NOTHING_STORED, REASONS_MAX, Polled, Standing, line
from agent.live.live import DEVICES_MAX, Live
from agent.live.query import ROWS_MAX, Query
from agent.live.rate import WINDOW_S, Rate
from agent.live.values import FOUND_KEPT_MAX, Values, plain
from agent.poller import DeviceState
from agent.shaping import shaping
from agent.uplink.trouble import Kind
from protocols.field.contract import Group, Quality, Scan, Tag, ValueType
from protocols.uplink.status import Buffer, Clock, DeviceLink, Health, Status
from tests.support.toolbox import configuration as document
from tests.support.toolbox import modbus_device

COUNT = 5
GROUP = Group("plc", "main", 1.0, tuple(Tag(f"t{at}", ValueType.FLOAT64) for at in range(COUNT)))
NOW_US = 1_700_000_000_000_000


# ── latest ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@st.composite
def scans(draw: st.DrawFn) -> Scan:
    indexes = draw(st.none() | st.lists(st.integers(0, COUNT - 1), unique=True, min_size=1).map(sorted))
    count = COUNT if indexes is None else len(indexes)
    quality = draw(
        st.none() | st.lists(st.sampled_from([0, Quality.BAD, Quality.UNCERTAIN]), min_size=count, max_size=count)
    )
    values = draw(st.lists(st.floats(allow_nan=False), min_size=count, max_size=count))
    where = range(COUNT) if indexes is None else indexes
    reasons = {at: "why" for at, code in zip(where, quality or [0] * count, strict=True) if code}
    return Scan(GROUP, draw(st.integers(0, 9)), values, indexes, quality, reasons)


@given(st.lists(scans(), max_size=12))
def test_latest_is_what_was_said_last_of_each_tag(said: list[Scan]) -> None:
    latest, known = Latest(GROUP), dict[int, Reading]()
    for scan in said:
        latest.take(scan)
        for at, index in enumerate(range(COUNT) if scan.indexes is None else scan.indexes):
            code = 0 if scan.quality is None else scan.quality[at]
            known[index] = Reading(scan.values[at], code, scan.time_us, scan.reasons.get(index, ""))
    assert latest.readings == [known.get(index) for index in range(COUNT)]
    assert latest.is_complete == (len(known) == COUNT)
    assert list(latest.not_good()) == [at for at in range(COUNT) if at not in known or known[at].quality != 0]


# ── rows ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def configured(folder: Path, *devices: dict[str, Any]) -> settings.Configuration:
    path = folder / "agent.yaml"
    path.write_text(yaml.safe_dump(document(*devices)))
    return settings.read(path, environ={})


@pytest.fixture
def two(tmp_path: Path) -> settings.Configuration:
    def tags(name: str) -> list[dict[str, Any]]:
        return [{"name": f"{name}.{at}", "address": 40001 + at, "unit": "bar\x1b"} for at in range(3)]

    return configured(tmp_path, modbus_device("press", 1, *tags("Level")), modbus_device("oven", 2, *tags("temp")))


def scan(of: settings.Configuration, device: str, values: list[Any], quality: list[int] | None = None) -> Scan:
    found = of.device(device)
    assert found is not None
    reasons = {at: f"{device} broke\x07" for at, code in enumerate(quality or []) if code}
    return Scan(found.groups[0], NOW_US, values, None, quality, reasons)


def names(values: Values, **query: Any) -> list[str]:
    return [f"{row['device']}/{row['tag']}" for row in values.asked(Query(**query))["rows"]]


def test_rows_are_found_by_words_of_device_and_tag(two: settings.Configuration) -> None:
    values = Values(two)
    assert names(values, filter="level") == ["press/Level.0", "press/Level.1", "press/Level.2"]
    assert names(values, filter="OVEN 1") == ["oven/temp.1"]
    assert names(values, filter="press temp") == []
    assert names(values, offset=2, limit=2) == ["press/Level.2", "oven/temp.0"]
    assert values.asked(Query(offset=99))["offset"] == 5  # of a list that has become shorter, the end


def test_rows_tell_value_quality_and_reason_without_control_characters(two: settings.Configuration) -> None:
    values = Values(two)
    values.take(scan(two, "press", [7, None, 9], [0, Quality.BAD_TIMEOUT, Quality.UNCERTAIN]))
    good, bad, uncertain = values.asked(Query(filter="press"))["rows"]
    assert (good["value"], good["shown"], good["quality"], good["reason"]) == (7, "7", "good", "")
    assert (bad["value"], bad["quality"], bad["status"]) == (None, "bad", "BadTimeout")
    assert bad["reason"] == "press broke\\x07"
    assert bad["unit"] == "bar\\x1b"
    assert (uncertain["quality"], uncertain["address"]) == ("uncertain", "40003")
    assert names(values, wrong=True, filter="press") == ["press/Level.1", "press/Level.2"]
    assert values.wrong() == {"press": 2, "oven": 3}  # of which nothing has come


def test_only_so_many_filters_are_remembered(two: settings.Configuration) -> None:
    values = Values(two)
    for at in range(3 * FOUND_KEPT_MAX):
        values.asked(Query(filter=f"{at}"))
    assert len(values._found) <= FOUND_KEPT_MAX


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**60, "x" * 5000])
def test_what_json_cannot_hold_has_no_plain_value(value: Any) -> None:
    assert plain(value) is None


@pytest.mark.parametrize("text", ["{}x", '{"limit": 501}', '{"offset": -1}', '{"filter": 3}', '{"other": 1}', "[]"])
def test_questions_are_bounded(text: str) -> None:
    with pytest.raises(ValidationError):
        Query.model_validate_json(text)
    assert Query(limit=ROWS_MAX).limit == ROWS_MAX


def test_derived_tags_stand_beside_those_they_are_made_of(tmp_path: Path) -> None:
    device = modbus_device("pump", 1, {"name": "inlet", "address": 40001}, {"name": "outlet", "address": 40002})
    device["groups"][0]["derived"] = [{"name": "drop", "expression": "inlet - outlet", "unit": "bar"}]
    of = configured(tmp_path, device)
    [pump] = of.devices
    values = Values(of)
    assert names(values) == ["pump/inlet", "pump/outlet", "pump/drop"]
    shape = shaping(pump, {}, drivers.make(pump, pump.groups, tmp_path), see=values.take)
    shape.of(pump.groups[0], [Scan(pump.groups[0], NOW_US, [7, 3])], 1.0, NOW_US)
    assert [(row["value"], row["address"]) for row in values.asked(Query())["rows"]] == [
        (7, "40001"),
        (3, "40002"),
        (4, "from inlet, outlet"),
    ]


# ── rates ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.floats(0.1, 5), min_size=2, max_size=50), st.integers(0, 1000))
def test_a_steady_counter_has_its_rate(steps: list[float], per_s: int) -> None:
    rate, now_s, found = Rate(), 0.0, None
    for step in steps:
        now_s += step
        found = rate.at(now_s, round(now_s * per_s))
    assert found is None or abs(found - per_s) <= 1 / 0.5 + 1e-6  # counts are whole: one too many or too few


def test_a_rate_is_unknown_until_looked_at_twice_and_after_a_long_pause() -> None:
    rate = Rate()
    assert rate.at(0, 0) is None
    assert rate.at(1, 10) == 10
    assert rate.at(WINDOW_S + 100, 10_000) is None


# ── the line ────────────────────────────────────────────────────────────────────────────────────────────────────────


def link(state: Any, reason: str = "", name: str = "m") -> DeviceLink:
    return DeviceLink(machine=name, state=state, since=NOW_US // 1000, reason=reason)


def polled(**devices: DeviceLink) -> Polled:
    return Polled(devices, 10 * len(devices), dict.fromkeys(devices, 0), 2.0, 20.0)


def standing(buffer: Buffer | None = None, clock: Clock | None = None, **more: Any) -> Standing:
    health = Health(buffer=buffer or Buffer(limit_bytes=1000))
    status = Status(timestamp=1, state="online", health=health, clock=clock)
    return Standing(status, **{"is_connected": True, "protocol": "MQTT 5", **more})


def marks(of: Polled, at: Standing) -> list[str | None]:
    return [None if one.mark is None else one.mark.value for one in line(of, at, NOW_US / 1e6 + 60)]


def test_a_healthy_line_is_well_at_every_station() -> None:
    found = line(polled(a=link("ok"), b=link("ok")), standing(), NOW_US / 1e6)
    assert [one.mark for one in found] == [Mark.OK] * 5
    assert [one.text for one in found] == ["2 of 2 answer", "20 values/s", "0 wait", "connected", "confirms"]
    assert not any(one.reasons for one in found)


def test_a_station_behind_one_that_fails_is_not_blamed() -> None:
    away = link("away", "a (modbus 10.0.0.1:502, unit 1): the connection was refused; check the port")
    assert marks(polled(a=away), standing()) == ["bad", None, "ok", "ok", "ok"]
    down = standing(is_connected=False, troubles={Kind.LINK: "MQTT broker b:1883: connection refused; check it"})
    assert marks(polled(a=link("ok")), down) == ["ok", "ok", "ok", "bad", None]
    assert marks(polled(a=link("ok")), standing(is_connected=False)) == ["ok", "ok", "ok", "note", None]


def test_reasons_say_what_fails_and_what_to_do() -> None:
    away = link("away", "a (modbus 10.0.0.1:502, unit 1): the connection was refused; check the port")
    bad = link("bad", "one tag fails: exception 2; check the address")
    at = standing(
        disk="outbox: the disk is full; make room",
        troubles={Kind.REFUSED: "the broker denies x; check its access rules", Kind.UNCONFIRMED: "nothing; look there"},
    )
    found = line(Polled({"a": away, "b": bad}, 9, {"a": 5, "b": 1}, None, None), at, NOW_US / 1e6 + 60)
    assert [[(one.text, one.fix) for one in station.reasons] for station in found] == [
        [("away for 1 min (modbus 10.0.0.1:502, unit 1): the connection was refused", "check the port")],
        [("bad for 1 min: one tag fails: exception 2", "check the address")],
        [("outbox: the disk is full", "make room")],
        [("connected, MQTT 5: the broker denies x", "check its access rules")],
        [("nothing", "look there")],
    ]
    assert [one.text for one in found] == ["1 of 2 answers", "1 tag fails", "0 wait", "connected", "does not confirm"]


def test_a_clock_that_nobody_vouches_for_is_told_where_its_times_are_kept() -> None:
    clock = Clock(synchronised=False, span="00" * 16, marked=7)
    stations = line(polled(a=link("ok")), standing(clock=clock), NOW_US / 1e6)
    (reason,) = stations[2].reasons
    assert (stations[2].name, reason.subject, reason.mark) == ("outbox", "clock", Mark.NOTE)
    assert "7 batches since the start are marked" in reason.text
    assert not line(polled(a=link("ok")), standing(clock=Clock(synchronised=True)), NOW_US / 1e6)[2].reasons


def test_the_receiver_is_asked_to_confirm_only_where_it_should() -> None:
    late = Buffer(limit_bytes=1000, queued_messages=5, oldest_sec=600)
    assert marks(polled(a=link("ok")), standing(late))[-1] == "bad"
    assert marks(polled(a=link("ok")), standing(late, is_confirmed=False))[-1] is None


def test_without_an_agent_nothing_is_said_of_what_it_would_do() -> None:
    found = line(polled(a=link("starting")), Standing(None), NOW_US / 1e6)
    assert [one.mark for one in found] == [Mark.NOTE, None, None, None, None]
    assert {one.detail for one in found[2:]} == {NOTHING_STORED}


def test_of_many_devices_that_are_away_the_first_are_told() -> None:
    devices = {f"d{at}": link("away", "x; y") for at in range(200)}
    [plc, *_] = line(polled(**devices), standing(), NOW_US / 1e6)
    assert len(plc.reasons) == REASONS_MAX + 1
    assert plc.reasons[-1].text == "and 180 more devices"


# ── all together ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Polling:
    state: DeviceState
    requests: int = 0


def polling(of: settings.Configuration) -> Mapping[str, Polling]:
    return {device.name: Polling(DeviceState()) for device in of.devices}


def test_a_look_shows_devices_in_trouble_first(two: settings.Configuration) -> None:
    pollers = polling(two)
    pollers["press"].state = DeviceState("ok", NOW_US)
    pollers["oven"].state = DeviceState("away", NOW_US, "oven (modbus x): gone; look")
    live = Live(two, pollers)
    was_watched, view = live.is_watched, live.look(Query())
    assert (was_watched, live.is_watched) == (False, True)
    assert [device["name"] for device in view["devices"]] == ["oven", "press"]
    assert view["devices"][0]["fix"] == "look"
    assert view["devices"][0]["endpoint"] == "127.0.0.1:2"
    assert view["agent"]["is_direct"] is True
    assert view["outbox"] is None
    outbox = Live(two, pollers, standing).look(Query())["outbox"]
    assert outbox["limit_bytes"] == 1000


def test_a_look_at_a_large_plant_is_bounded(tmp_path: Path) -> None:
    many = configured(tmp_path, *(modbus_device(f"d{at}", 1) for at in range(DEVICES_MAX + 20)))
    view = Live(many, polling(many)).look(Query(limit=ROWS_MAX))
    assert (len(view["devices"]), view["device_count"]) == (DEVICES_MAX, DEVICES_MAX + 20)
    assert view["values"]["tags"] == DEVICES_MAX + 20


def test_float32_is_shown_without_digits_that_it_does_not_have(two: settings.Configuration) -> None:
    value = struct.unpack(">f", struct.pack(">f", 23.1))[0]
    device = two.device("press")
    assert device is not None
    values = Values(two)
    values.take(Scan(device.groups[0], NOW_US, [value, 1, 2]))
    assert values.asked(Query(limit=1))["rows"][0]["value"] == value
