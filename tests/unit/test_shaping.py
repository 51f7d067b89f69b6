"""From the configuration to what reaches the batcher: filters, derived tags and changes of a device in a row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import drivers, settings
from agent.derived import Board
from agent.settings import Configuration, SettingsError
from agent.shaping import Shaping, shaping
from protocols.field.contract import Group, Scan, Value
from protocols.values import Quality, ValueType

SECOND_US = 1_000_000


def tag(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, **keys}


def device(name: str, tags: Sequence[dict[str, Any]], **group: Any) -> dict[str, Any]:
    return {
        "name": name,
        "machine": "press-1",
        "protocol": "memory",
        "groups": [{"tags": list(tags), **group}],
    }


def read(tmp_path: Path, *devices: dict[str, Any]) -> Configuration:
    path = tmp_path / "agent.yaml"
    document = {
        "gateway": {"thing": "gw-1", "tenant": "acme", "province": "bolzano", "plant": "plant-1"},
        "broker": {"host": "127.0.0.1"},
        "devices": list(devices),
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return settings.read(path, environ={})


def problems(tmp_path: Path, *devices: dict[str, Any]) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        read(tmp_path, *devices)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in raised.value.problems]


class Line:
    """The devices of a machine; `rows` reads one of them and gives what would reach the batcher."""

    def __init__(self, configuration: Configuration) -> None:
        board: Board = {}
        self.groups = {device.name: device.groups[0] for device in configuration.devices}
        self._shapings = {device.name: Shaping(device, board) for device in configuration.devices}
        self._now_s = 0.0

    def rows(self, name: str, *values: Value, quality: Sequence[int] | None = None) -> list[dict[str, Value]]:
        self._now_s += 1
        time_us = int(self._now_s * SECOND_US)
        scan = Scan(self.groups[name], time_us, list(values), None, quality)
        scans = self._shapings[name].of(self.groups[name], [scan], self._now_s, time_us)
        return [by_name(one) for one in scans]


def by_name(scan: Scan) -> dict[str, Value]:
    indexes = range(len(scan.values)) if scan.indexes is None else scan.indexes
    return {scan.group.tags[at].name: value for at, value in zip(indexes, scan.values, strict=True)}


def test_where_nothing_is_configured_scans_go_through_untouched(tmp_path: Path) -> None:
    [plain] = read(tmp_path, device("plc-1", [tag("a"), tag("b")])).devices
    scans = [Scan(plain.groups[0], 0, [1.0, 2.0])]
    assert Shaping(plain, {}).of(plain.groups[0], scans, 0.0, 0) is scans


def test_a_tags_own_keys_go_before_its_groups_one_by_one(tmp_path: Path) -> None:
    tags = [
        tag("default"),
        tag("fine", deadband=0.1),
        tag("share", deadband="2.5 %"),
        tag("each", max_silence_s=0),
        tag("word", type="string"),
    ]
    [found] = read(tmp_path, device("plc-1", tags, deadband=1, max_silence_s=60)).devices
    changes = found.rules["main"].changes
    assert changes is not None
    told = [(rule.deadband, rule.percent, rule.max_silence_s) for rule in changes if rule is not None]
    assert told == [(1.0, 0.0, 60.0), (0.1, 0.0, 60.0), (0.0, 2.5, 60.0), (1.0, 0.0, 0.0), (1.0, 0.0, 60.0)]


def test_a_tag_is_reported_by_exception_when_it_or_its_group_says_so(tmp_path: Path) -> None:
    tags = [tag("a"), tag("b", deadband=0), tag("c", max_silence_s=5)]
    [found] = read(tmp_path, device("plc-1", tags)).devices
    changes = found.rules["main"].changes
    assert changes is not None
    assert [None if rule is None else (rule.deadband, rule.max_silence_s) for rule in changes] == [
        None,
        (0.0, 3600.0),
        (0.0, 5.0),
    ]


def test_filter_then_derive_then_leave_small_changes_out(tmp_path: Path) -> None:
    line = Line(
        read(
            tmp_path,
            device(
                "plc-1",
                [tag("a", average_of=2), tag("b")],
                deadband=1.0,
                derived=[tag("sum", expression="a + b", deadband=0.5), tag("high", expression="sum > 20")],
            ),
        )
    )
    assert line.rows("plc-1", 10.0, 5.0) == [{"a": 10.0, "b": 5.0}, {"sum": 15.0, "high": False}]
    assert line.rows("plc-1", 10.0, 5.5) == []  # 0.5 is not more than the deadband of any
    assert line.rows("plc-1", 11.6, 5.5) == [{"sum": 16.3}]  # computed of what was read, not of what was reported
    assert line.rows("plc-1", 31.6, 5.5) == [{"a": 21.6}, {"sum": 27.1, "high": True}]


def test_tags_of_several_devices_and_derived_tags_in_any_order(tmp_path: Path) -> None:
    line = Line(
        read(
            tmp_path,
            device("plc-1", [tag("a")], derived=[tag("twice", expression="both * 2"), tag("both", expression="a + b")]),
            device("plc-2", [tag("b", type="int")], derived=[tag("rate", rate_of="b")]),
        )
    )
    assert line.rows("plc-1", 1.0) == [{"a": 1.0}]  # nothing is known of b yet
    assert line.rows("plc-2", 10) == [{"b": 10}]
    assert line.rows("plc-1", 1.0) == [{"a": 1.0}, {"both": 11.0, "twice": 22.0}]
    assert line.rows("plc-2", 14) == [{"b": 14}, {"rate": 2.0}]


def test_a_counter_that_its_subscription_says_nothing_of_stands_still(tmp_path: Path) -> None:
    """Its rate is of the gateway's time, because the server's stamp of the last change may lie behind."""
    derived = [tag("pace", rate_of="pieces"), tag("twice", expression="pieces * 2")]
    [found] = read(tmp_path, device("plc-1", [tag("pieces", type="int")], derived=derived)).devices
    shaped, group = Shaping(found, {}), found.groups[0]

    def reported(second: int, *values: int, stamped_us: int = 0) -> list[tuple[int, dict[str, Value]]]:
        scans = [Scan(group, stamped_us, [value], [0]) for value in values]
        told = shaped.of(group, scans, float(second), second * SECOND_US)
        return [(one.time_us, by_name(one)) for one in told if one.group is not group]

    assert reported(1, 10, stamped_us=500_000) == [(500_000, {"twice": 20})]
    assert reported(2, 11, 14, stamped_us=900_000) == [(2 * SECOND_US, {"pace": 4.0, "twice": 28})]
    assert reported(3) == [(3 * SECOND_US, {"pace": 0.0})]
    assert reported(4, 15, stamped_us=2_900_000) == [(4 * SECOND_US, {"pace": 1.0, "twice": 30})]
    assert reported(5) == [(5 * SECOND_US, {"pace": 0.0})]
    bad = Scan(group, 6 * SECOND_US, [None], [0], [Quality.BAD], {0: "gone"})
    [_, derived_bad] = shaped.of(group, [bad], 6.0, 6 * SECOND_US)
    assert derived_bad.values == [None, None]
    assert reported(7) == [], "it is bad until something is reported, and that was said"


def test_the_group_of_derived_tags_has_a_name_of_its_own(tmp_path: Path) -> None:
    taken = device("plc-1", [tag("a")], derived=[tag("b", expression="a", unit="bar")], period_s=0.05, priority="high")
    taken["groups"].append({"name": "main-derived", "tags": [tag("c")]})
    [found] = read(tmp_path, taken).devices
    names = [group.name for group in found.published]
    assert names == ["main", "main-derived", "main-derived-2"]
    derived = found.published[-1]
    assert (derived.device, derived.period_s, derived.priority) == ("plc-1", 0.05, found.groups[0].priority)
    assert [(one.name, one.value_type, one.unit) for one in derived.tags] == [("b", ValueType.FLOAT64, "bar")]


def test_a_device_that_leaves_small_changes_out_itself_is_only_kept_from_silence(tmp_path: Path) -> None:
    [found] = read(tmp_path, device("plc-1", [tag("a", deadband=5), tag("b", deadband=5)], max_silence_s=2)).devices

    class Narrowing:
        """A driver whose device applies the deadband of its first tag."""

        requests = 0

        async def connect(self) -> None: ...

        async def read(self, group: Group) -> Sequence[Scan]:
            return []

        async def close(self) -> None: ...

        def narrowed(self, group: Group) -> list[int]:
            return [0]

    shaped, group = shaping(found, {}, Narrowing()), found.groups[0]
    shaped.of(group, [Scan(group, 0, [1.0, 1.0])], 0.0, 0)
    [second] = shaped.of(group, [Scan(group, 1, [2.0, 2.0])], 1.0, 1)
    assert by_name(second) == {"a": 2.0}
    [third] = shaped.of(group, [], 2.0, 2)
    assert by_name(third) == {"b": 2.0}
    ordinary = shaping(found, {}, drivers.make(found, found.groups, tmp_path))
    ordinary.of(group, [Scan(group, 0, [1.0, 1.0])], 0.0, 0)
    assert ordinary.of(group, [Scan(group, 1, [2.0, 2.0])], 1.0, 1) == []


def test_a_device_that_is_away_makes_what_is_derived_from_it_bad(tmp_path: Path) -> None:
    [found] = read(tmp_path, device("plc-1", [tag("a")], deadband=9, derived=[tag("b", expression="a * 2")])).devices
    shaped, group = Shaping(found, {}), found.groups[0]
    shaped.of(group, [Scan(group, 0, [1.0])], 0.0, 0)
    away = Scan.all_bad(group, SECOND_US, Quality.BAD_NOT_CONNECTED, "plc-1: connection refused; check the address")
    direct, derived = shaped.of(group, [away], 1.0, SECOND_US)
    assert direct == away
    assert (derived.values, derived.quality) == ([None], [Quality.BAD_NOT_CONNECTED])
    assert derived.reasons == {0: "a: plc-1: connection refused; check the address"}


@pytest.mark.parametrize(
    ("tags", "group", "says"),
    [
        ([tag("a", deadband=-1)], {}, "tags[0].deadband: a deadband is 0 or more"),
        ([tag("a", deadband="2")], {}, "tags[0].deadband: '2' is no deadband; write a number"),
        ([tag("a", deadband=True)], {}, "tags[0].deadband: expected a number or a text"),
        ([tag("a", max_silence_s=1e6)], {}, "tags[0].max_silence_s: must be at most 86400"),
        ([tag("a", type="bool", deadband=1)], {}, "tags[0].deadband: a deadband is for numbers, not for type bool"),
        ([tag("a", type="string", median_of=3)], {}, "tags[0].median_of: median_of is for numbers"),
        ([tag("a", median_of=2)], {}, "tags[0].median_of: must be at least 3"),
        ([tag("a")], {"deadband": "x %"}, "groups[0].deadband: 'x %' is no deadband"),
        ([tag("a")], {"derived": [tag("b")]}, "derived[0]: a derived tag has either `expression` or `rate_of`"),
        ([tag("a")], {"derived": [tag("b", expression="a +")]}, "derived[0].expression: it is no expression"),
        ([tag("a"), tag("b")], {"derived": [tag("a", expression="b")]}, "machine press-1 already has a tag a"),
        (
            [tag("flow")],
            {"derived": [tag("b", expression="flwo * 2")]},
            "no tag flwo in machine press-1; did you mean flow?",
        ),
        ([tag("a")], {"derived": [tag("b", rate_of="c")]}, "derived[0].rate_of: there is no tag c in machine press-1"),
        ([tag("a", type="bool")], {"derived": [tag("b", rate_of="a")]}, "rate_of: a is no number, and has no rate"),
        (
            [tag("a", type="string")],
            {"derived": [tag("b", expression="a + 1")]},
            "expression: a is a text, and a + 1 needs",
        ),
        (
            [tag("a")],
            {"derived": [tag("b", expression="a > 1", average_of=3)]},
            "average_of is for numbers, not for type bool",
        ),
        ([tag("a")], {"derived": [tag("b", expression="b + a")]}, "it is made of itself: b → b"),
        (
            [tag("a")],
            {"derived": [tag("b", expression="c + a"), tag("c", rate_of="b")]},
            "it is made of itself: ",
        ),
        ([tag("a")], {"derived": [tag("b", expresion="a")]}, 'unknown key "expresion"; did you mean "expression"?'),
    ],
)
def test_what_cannot_be_is_refused_at_its_place(
    tmp_path: Path, tags: list[dict[str, Any]], group: dict[str, Any], says: str
) -> None:
    [found] = problems(tmp_path, device("plc-1", tags, **group))
    assert says in found
    place, line, column, _ = found.split(":", 3)
    assert place == "agent.yaml"
    assert int(line) > 0
    assert int(column) > 0
