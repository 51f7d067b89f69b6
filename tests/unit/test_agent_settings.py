"""The agent's configuration: what is accepted, and which sentence at which place says what is wrong."""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import settings
from agent.commands import doubt
from agent.commands.findings import Finding, Mark, lines, split
from agent.commands.init import example
from agent.commands.polling import Latest, shown
from agent.outbox.contract import HIGH, LOW, NORMAL
from agent.settings import Configuration, SettingsError
from protocols.field.contract import Group, Scan, Tag, ValueType

GOOD: dict[str, Any] = {
    "gateway": {"thing": "gw-1", "tenant": "acme", "province": "bolzano", "plant": "plant-1"},
    "broker": {"host": "127.0.0.1"},
    "devices": [
        {
            "name": "plc-1",
            "machine": "press-1",
            "protocol": "modbus",
            "host": "10.0.0.5",
            "groups": [{"tags": [{"name": "pressure", "address": 40001}]}],
        }
    ],
}


def read(tmp_path: Path, text: str, **overrides: str) -> Configuration:
    path = tmp_path / "agent.yaml"
    path.write_text(text, encoding="utf-8")
    return settings.read(path, overrides=overrides, environ={})


def changed(change: Any) -> str:
    """The good configuration, changed."""
    document = yaml.safe_load(yaml.safe_dump(GOOD))
    change(document)
    return yaml.safe_dump(document, sort_keys=False)


def problems(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(SettingsError) as raised:
        read(tmp_path, text)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in raised.value.problems]


def test_a_good_one_is_ready_to_be_wired(tmp_path: Path) -> None:
    configuration = read(tmp_path, changed(lambda document: None))
    [device] = configuration.devices
    assert configuration.gateway.confirm == "ops/acme/bolzano/plant-1/gateway/gw-1/confirm"
    assert configuration.machines["press-1"].telemetry == "factory/acme/bolzano/plant-1/press-1/telemetry"
    assert (device.groups[0].name, device.groups[0].period_s) == ("main", 1.0)
    assert [tag.name for tag in device.groups[0].tags] == ["pressure"]
    assert configuration.device("plc-1") is device
    assert configuration.device("plc-2") is None
    assert configuration.settings.data_dir == "/var/lib/holdfast"


@pytest.mark.parametrize(("word", "priority"), [("low", LOW), ("normal", NORMAL), ("high", HIGH), (None, NORMAL)])
def test_a_group_has_a_priority(tmp_path: Path, word: str | None, priority: int) -> None:
    given = {} if word is None else {"priority": word}
    configuration = read(tmp_path, changed(lambda document: document["devices"][0]["groups"][0].update(given)))
    assert configuration.devices[0].groups[0].priority == priority


def test_states_and_flags_are_written_by_number(tmp_path: Path) -> None:
    """In YAML every key is a text, quoted or not: what is meant is the number."""

    def tag(states: str, kind: str = "states") -> str:
        line = f"- {{name: mode, address: 40001, {kind}: {states}}}"
        return changed(lambda document: document["devices"][0]["groups"][0].update(tags=["HERE"])).replace(
            "- HERE", line
        )

    for states in ("{0: idle, 1: running, -1: lost}", '{"0": idle, 0x1: running, "-1": lost}'):
        [mode] = read(tmp_path, tag(states)).devices[0].groups[0].tags
        assert mode.address.meaning.states == {0: "idle", 1: "running", -1: "lost"}
    [alarms] = read(tmp_path, tag("{0: dry run, 3: overheated}", "flags")).devices[0].groups[0].tags
    assert alarms.address.meaning.flags == {0: "dry run", 3: "overheated"}
    for states, kind, problem in (
        ("{idle: 0}", "states", "states.idle: "),
        ("{1.5: idle}", "states", "states.1.5: "),
        ("{010: idle}", "states", "states.010: "),
        ("{0: idle, 0x0: running}", "states", "0 has two names; keep one"),
        ("{64: idle}", "flags", "flags: must be at most 63, found the number 64"),
    ):
        with pytest.raises(SettingsError) as refused:
            read(tmp_path, tag(states, kind))
        assert problem in str(refused.value)


def test_a_period_may_be_50_ms(tmp_path: Path) -> None:
    configuration = read(tmp_path, changed(lambda document: document["devices"][0]["groups"][0].update(period_s=0.05)))
    assert configuration.devices[0].groups[0].period_s == 0.05


def test_flags_and_variables_go_first(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(changed(lambda document: None))
    environ = {
        "HOLDFAST_BROKER__HOST": "b",
        "HOLDFAST_BROKER__PORT": "1",
        "HOLDFAST_CONFIG": "x",
        "HOLDFAST_CLOUD_X": "y",
    }
    found = settings.read(path, overrides={"broker.port": "2"}, environ=environ).settings.broker
    assert (found.host, found.port) == ("b", 2)


def test_the_hash_tells_configurations_apart_and_knows_no_password(tmp_path: Path) -> None:
    def hash_of(**broker: str) -> str:
        return read(tmp_path, changed(lambda document: document["broker"].update(broker))).hash

    assert hash_of() == hash_of()
    assert hash_of() != hash_of(host="10.0.0.1")
    assert hash_of(username="u", password="one") == hash_of(username="u", password="two")
    other_tag = changed(lambda document: document["devices"][0]["groups"][0]["tags"][0].update(address=40002))
    assert read(tmp_path, other_tag).hash != hash_of()


def test_reading_takes_little_memory_per_tag(tmp_path: Path) -> None:
    """What is needed only for a mistake's place, or as a copy, would be the most that the agent ever takes."""
    count = 4000
    tags = [{"name": f"t{number}", "address": f"holding:{number}"} for number in range(count)]
    text = changed(lambda document: document["devices"][0]["groups"][0].update(tags=tags))
    read(tmp_path, changed(lambda document: None))  # all modules are loaded by this
    tracemalloc.start()
    try:
        read(tmp_path, text)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes / count < 2000  # 2,800 with every place noted and the whole file as one text


def test_opc_ua_without_its_package_is_told_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncua", None)  # for imports, as if it were not installed
    document = yaml.safe_load(yaml.safe_dump(GOOD))
    tag = {"name": "t", "node": "ns=2;s=t", "type": "float64"}
    own = {"protocol": "opcua", "url": "opc.tcp://10.0.0.6", "groups": [{"tags": [tag]}]}
    document["devices"] = [{"name": "oven", "machine": "oven-1", **own}]
    [problem] = problems(tmp_path, yaml.safe_dump(document, sort_keys=False))
    assert problem.partition(" devices[0]: ")[2] == (
        "protocol opcua needs the package asyncua, which is not installed here; install it with: "
        "pip install 'holdfast[opcua]', or from locks/gateway-opcua.txt"
    )


TWICE = """\
gateway: {thing: gw-1, tenant: acme, province: bolzano, plant: plant-1}
broker: {hots: 127.0.0.1}
devices:
  - name: plc-1
    machine: press-1
    protocol: modbuss
    groups:
      - tags: [{name: a, address: 40001}]
  - name: plc-1
    machine: press-1
    protocol: modbus
    host: 10.0.0.5
    unitid: 3
    groups:
      - tags:
          - {name: a, address: 1}
          - {name: b, address: holding:0, type: float23}
          - {name: c, address: holding:0, scale: 0}
          - {name: d, adress: holding:0}
"""


@pytest.mark.parametrize(
    ("wrong", "right", "in_group"),
    [
        ("machne", "machine", False),
        ("group", "groups", False),
        ("unitid", "unit_id", False),
        ("perod_s", "period_s", True),
        ("period", "period_s", True),
    ],
)
def test_a_misspelt_key_of_every_protocol_is_recognised_beside_the_drivers_own(
    tmp_path: Path, wrong: str, right: str, in_group: bool
) -> None:
    document = yaml.safe_load(yaml.safe_dump(GOOD))
    place = document["devices"][0]["groups"][0] if in_group else document["devices"][0]
    place[wrong] = place.pop(right, 1)
    told = problems(tmp_path, yaml.safe_dump(document, sort_keys=False))
    assert [one for one in told if f'unknown key "{wrong}"; did you mean "{right}"?' in one]


def test_every_problem_at_once_each_at_its_place_with_the_remedy(tmp_path: Path) -> None:
    tag = "devices[1].groups[0].tags"
    expected = [
        (2, "broker.host", 'the key "host" is missing; add it'),
        (2, "broker.hots", 'unknown key "hots"; did you mean "host"?'),
        (6, "devices[0].protocol", "there is no driver for 'modbuss'; did you mean modbus?"),
        (9, "devices[1].name", "a device plc-1 stands above; choose another name"),
        (13, "devices[1].unitid", 'unknown key "unitid"; did you mean "unit_id"?'),
        (16, f"{tag}[0].name", "machine press-1 already has a tag a (of device plc-1); choose another name"),
        (16, f"{tag}[0].address", "address '1' does not say which table it means; write the classic reference, which"),
        (17, f"{tag}[1].type", 'expected one of "int16", "int32", "int64", "uint16", "uint32", "uint64", "float32", '),
        (18, f"{tag}[2]", "tag c: scale 0 would make every value the offset; leave scale out, or give the factor"),
        (19, f"{tag}[3].address", 'the key "address" is missing; add it'),
        (19, f"{tag}[3].adress", 'unknown key "adress"; did you mean "address"?'),
    ]
    said = problems(tmp_path, TWICE)
    for one, (line, path, sentence) in zip(said, expected, strict=True):
        file, told_line, column, told_path, told = one.split(":", 4)
        assert (file, int(told_line), told_path.strip()) == ("agent.yaml", line, path)
        assert int(column) > 1
        assert told.strip().startswith(sentence)


@pytest.mark.parametrize(
    ("change", "place", "sentence"),
    [
        (lambda d: d["gateway"].update(thing="GW 1"), "gateway.thing", "does not match the pattern"),
        (lambda d: d.update(devices=[]), "devices", "must have at least 1 entry, found 0"),
        (lambda d: d["devices"][0]["groups"][0].update(period_s=0.049), "groups[0].period_s", "must be at least 0.05"),
        (lambda d: d["devices"][0]["groups"][0].update(tags=[]), "groups[0].tags", "must have at least 1 entry"),
        (lambda d: d["devices"][0].update(groups=None), "devices[0].groups", "expected a list"),
        (lambda d: d["devices"][0].pop("host"), "devices[0].host", 'the key "host" is missing'),
        (lambda d: d["devices"][0].pop("protocol"), "devices[0].protocol", 'the key "protocol" is missing'),
        (lambda d: d["broker"].update(password="x"), "broker", "a password needs a username"),
        (lambda d: d.update(outbox={"limit_bytes": 1}), "outbox.limit_bytes", "must be at least 1048576"),
        (lambda d: d["devices"][0]["groups"].append({"tags": [{"name": "b", "address": 40002}]}),
         "groups[1]", "a group main stands above; give each group a name"),
        (lambda d: d.update(devices={"name": "plc"}), "devices", "expected a list"),
        (lambda d: d.update(devices=["plc"]), "devices[0]", "expected keys with values"),
    ],
)  # fmt: skip
def test_one_mistake_gives_its_sentence(tmp_path: Path, change: Any, place: str, sentence: str) -> None:
    said = problems(tmp_path, changed(change))
    assert any(place in one and sentence in one for one in said), said


def test_what_only_the_driver_can_know_is_told_before_the_start(tmp_path: Path) -> None:
    def change(document: dict[str, Any]) -> None:
        device = document["devices"][0]
        device["max_registers"] = 2
        device["groups"][0]["tags"][0].update(type="string", length=20)

    [said] = problems(tmp_path, changed(change))
    assert "devices[0]: plc-1 (modbus 10.0.0.5:502, unit 1): " in said
    assert "raise max_registers or shorten it" in said


@pytest.mark.parametrize(
    ("tag", "says"),
    [
        ({"address": 30001}, "tag pressure is read with function 4, which `functions` leaves out; add it"),
        ({"address": 40001, "bit": 3, "writable": True}, "tag pressure is written with function 22, which"),
        ({"address": 40001, "type": "uint16", "writable": True, "write_min": 0, "write_max": 1}, ""),
        ({"address": "coil:0", "writable": True}, "tag pressure is written with function 5 or 15, which"),
    ],
)
def test_a_device_is_asked_only_for_functions_that_it_knows(tmp_path: Path, tag: dict[str, Any], says: str) -> None:
    def change(document: dict[str, Any]) -> None:
        document["devices"][0].update(functions=[1, 3, 16], groups=[{"tags": [{"name": "pressure", **tag}]}])

    if not says:
        assert read(tmp_path, changed(change)).device("plc-1") is not None
        return
    [said] = problems(tmp_path, changed(change))
    assert says in said and "devices[0]: plc-1 (modbus 10.0.0.5:502, unit 1): " in said


def test_the_example_is_valid_and_shows_what_a_technician_needs(tmp_path: Path) -> None:
    configuration = read(tmp_path, example())
    assert {device.protocol for device in configuration.devices} == {"modbus", "opcua"}
    for word in (
        "40001",
        "holding:1",
        "CDAB",
        "BADC",
        "DCBA",
        "scale:",
        "offset:",
        "bit:",
        "length:",
        "nsu=",
        '"00001"',
    ):
        assert word in example(), word


def test_the_defaults_that_the_example_tells_are_the_real_ones(tmp_path: Path) -> None:
    """Every commented key that is not marked as an example, taken in, changes nothing."""
    plain = read(tmp_path, example())
    values = {
        "data_dir": "/var/lib/holdfast", "outbox.limit_bytes": "1073741824", "outbox.reserve_bytes": "8388608",
        "batch.interval_s": "1.0", "delivery": "confirmed", "shutdown_drain_s": "5.0", "broker.port": "1883",
        "broker.mqtt_version": "auto", "broker.keep_alive_s": "20", "devices[0].port": "502",
        "devices[0].unit_id": "1", "devices[0].timeout_s": "1.0", "devices[0].order": "ABCD",
        "devices[0].max_registers": "125", "devices[0].max_gap": "16", "devices[1].timeout_s": "4.0",
        "devices[1].groups[0].mode": "subscribe", "outbox.when_full": "drop_oldest", "outbox.age_max_s": "0",
        "outbox.grace_s": "86400", "outbox.free_disk_bytes": "0", "uplink.backlog_bytes_per_s": "4000000",
        "devices[0].groups[0].priority": "normal",
    }  # fmt: skip
    told = example()
    for path, value in values.items():
        key = path.rpartition(".")[2]
        assert f"# {key}: {value}" in told or f"#   {key}: {value}" in told, path
    given = read(tmp_path, example(), **values)
    assert [d.settings for d in given.devices] == [d.settings for d in plain.devices]
    assert [d.groups for d in given.devices] == [d.groups for d in plain.devices]
    assert given.settings.model_copy(update={"devices": []}) == plain.settings.model_copy(update={"devices": []})


# ── what people are shown ───────────────────────────────────────────────────────────────────────────────────────────


def group_of(*tags: Tag) -> Group:
    return Group("plc-1", "main", 1.0, tags)


def said_of(value: float, keys: dict[str, Any], order: str | None = "ABCD") -> list[str]:
    tag = Tag("flow", ValueType.FLOAT32)
    latest = Latest(group_of(tag))
    latest.take(Scan(latest.group, 0, [value]))
    return list(doubt.doubts({"flow": keys}, order, latest))


@pytest.mark.parametrize(
    ("kind", "true_value", "true_order", "used"),
    [
        ("float32", 21.5, "CDAB", "ABCD"),
        ("float32", 21.5, "ABCD", "CDAB"),
        ("float32", 73.25, "DCBA", "ABCD"),
        ("float64", -12.75, "CDAB", "ABCD"),
        ("float64", 4000.5, "DCBA", "BADC"),
        ("uint32", 7, "CDAB", "ABCD"),
        ("int32", 1234, "ABCD", "CDAB"),
        ("uint64", 99, "CDAB", "ABCD"),
    ],
)
def test_a_wrong_word_order_is_doubted_and_the_right_one_proposed(
    kind: str, true_value: float, true_order: str, used: str
) -> None:
    misread = doubt.readings(kind, true_value, true_order)[used]
    assert doubt.is_doubtful(kind, misread)
    assert not doubt.is_doubtful(kind, true_value)
    [sentence] = said_of(misread, {"name": "flow", "type": kind, "order": used})
    assert f"with order: {true_order} it is {true_value:.7g}" in sentence
    assert doubt.readings(kind, misread, used)[true_order] == true_value


def test_doubt_knows_scale_and_says_nothing_where_it_cannot_know() -> None:
    misread = doubt.readings("uint32", 250, "ABCD")["CDAB"]
    [sentence] = said_of(misread * 0.1 - 5, {"type": "uint32", "order": "CDAB", "scale": 0.1, "offset": -5})
    assert "with order: ABCD it is 250" in sentence
    assert said_of(1e-40, {"type": "float32"}, order=None) == []
    assert said_of(65536, {"type": "uint16"}) == []
    assert said_of(0.0, {"type": "float32"}) == []
    [sentence] = said_of(1e300, {"type": "float64", "order": "ABCD"})
    assert sentence.startswith("flow: 1e+300 as float64 ABCD is hardly a true value; ")


@pytest.mark.parametrize(
    ("value", "value_type", "text"),
    [
        (None, ValueType.FLOAT32, "-"),
        (True, ValueType.BOOL, "true"),
        (71.30000305175781, ValueType.FLOAT32, "71.3"),
        (21.500000000000004, ValueType.FLOAT64, "21.5"),
        (9007199254740993, ValueType.INT, "9007199254740993"),
        ("T5", ValueType.STRING, "T5"),
    ],
)
def test_a_value_is_shown_with_the_digits_that_it_has(value: Any, value_type: ValueType, text: str) -> None:
    assert shown(value, value_type) == text


def test_findings_fit_the_terminal_and_keep_their_column() -> None:
    findings = [
        Finding(Mark.OK, "clock", "synchronised"),
        Finding(Mark.BAD, "plc-1", "no answer " * 20, "do this and " * 10, ("why " * 30,)),
        Finding(Mark.NOTE, "a-device-with-a-very-long-name", "x\x1b[2J"),
    ]
    told = lines(findings, 80)
    assert max(map(len, told)) <= 80
    assert told[0] == "✓ clock               synchronised"
    assert sum(line.startswith("✗ plc-1") for line in told) == 1
    assert sum("→ do this" in line for line in told) == 1
    assert told[-1] == "! a-device-with-a-very-long-name  x\\x1b[2J"
    assert len(lines(findings, None)) == 5


def test_split_finds_the_remedy() -> None:
    assert split("a; b; c.") == ("a; b", "c")
    assert split("a; b; c.", first=True) == ("a", "b; c")
    assert split("nothing to do.") == ("nothing to do", "")
