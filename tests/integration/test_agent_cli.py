"""The command line of the agent, as a technician meets it: real processes, a simulated plant, a real broker.

Every answer is looked at for three things: its exit code, a sentence that names the thing and the remedy, and that no
traceback is anywhere in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from agent.clock import kernel_says
from demo.plant import Ports, devices
from tests.support.brokers import Broker, free_port, mosquitto
from tests.support.cli import Prepared, prepared

ROOT = Path(__file__).parents[2]
WAIT_S = 30.0
USAGE, UNAVAILABLE, TEMPORARY, CONFIGURATION = 64, 69, 75, 78


# ── the program ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Answer:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def flat(self) -> str:
        """Everything it said as one line, however it was wrapped."""
        return " ".join((self.out + self.err).split())


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST_", "NOTIFY_"))}
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "80", **more}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "agent.cli", *arguments]


_program: Prepared | None = None


@pytest.fixture(scope="module", autouse=True)
def program() -> Iterator[None]:
    global _program
    with prepared(
        "agent.cli",
        "protocols.program.logs",
        "agent.commands.readings",
        "agent.commands.check_host",
        "agent.running",
        "protocols.uplink.mqtt",
        "protocols.field.modbus_line",
        "protocols.field.opcua_session",
    ) as _program:
        yield


def holdfast(folder: Path, *arguments: str, **more: str) -> Answer:
    """Run a command to its end in `folder`, where `agent.yaml` lies."""
    assert _program is not None
    ended = _program.run(arguments, cwd=folder, environ=environment(**more))
    assert "Traceback" not in ended.out + ended.err
    assert ended.code != 70, ended.err
    return Answer(ended.code, ended.out, ended.err)


def each(folder: Path, *lines: Sequence[str]) -> list[Answer]:
    """Run several commands, one after another."""
    return [holdfast(folder, *line) for line in lines]


def wait_for(is_true: Callable[[], object], what: str) -> None:
    end_s = time.monotonic() + WAIT_S
    while not is_true():
        assert time.monotonic() < end_s, f"waited in vain for: {what}"
        time.sleep(0.02)


@contextlib.contextmanager
def agent(folder: Path, *arguments: str, python: Sequence[str] = (), **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """`holdfast run` in the background, its log in `run.log`; killed at the end if it is still there."""
    line = [sys.executable, *python, "-m", "agent.cli", "run", *arguments]
    with (folder / "run.log").open("wb") as log:
        process = subprocess.Popen(line, cwd=folder, env=environment(**more), stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def log_of(folder: Path) -> str:
    return (folder / "run.log").read_text()


def stopped(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> int:
    process.send_signal(number)
    return process.wait(WAIT_S)


# ── the plant, the broker, the configuration ────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def plant() -> Iterator[Ports]:
    process = subprocess.Popen(
        [sys.executable, "-m", "demo.plant", "--modbus-1", "0", "--modbus-2", "0", "--opcua", "0"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said.pop("ready") is True
        yield Ports(**said)
    finally:
        process.terminate()
        process.wait(WAIT_S)
        assert process.stdout is not None
        process.stdout.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    async with mosquitto(tmp_path_factory.mktemp("broker")) as started:
        yield started


Document = dict[str, Any]


@pytest.fixture
def document(plant: Ports, broker: Broker, tmp_path: Path) -> Document:
    """A configuration of the whole plant: solar-plc, press-plc, oven-controller. Change it, then `write` it."""
    found = []
    for device in devices(plant):
        groups = [
            {"name": g["name"], "period_s": g["period_s"], **g["options"], "tags": deepcopy(g["tags"])}
            for g in device["groups"]
        ]
        head = {key: device[key] for key in ("name", "machine", "protocol")}
        found.append({**head, **device["settings"], "groups": groups})
    return {
        "gateway": {"thing": "gw-1", "tenant": "acme", "province": "bolzano", "plant": "plant-1"},
        "broker": {"host": broker.host, "port": broker.port},
        "data_dir": "data",
        "shutdown_drain_s": 0.2,
        "devices": found,
    }


def write(folder: Path, document: Document) -> Path:
    path = folder / "agent.yaml"
    path.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path


def only(document: Document, *names: str) -> Document:
    document["devices"] = [device for device in document["devices"] if device["name"] in names]
    return document


def device_of(document: Document, name: str) -> dict[str, Any]:
    return next(device for device in document["devices"] if device["name"] == name)


def finding(answer: Answer, subject: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in answer.json["findings"] if one["subject"] == subject)
    return found


def text_of(one: dict[str, Any]) -> str:
    return " ".join([one["text"], *one["details"], one["fix"]])


def code_of(*bad: str) -> int:
    """Of `check`, where these subjects are bad. This machine's own clock may be, too."""
    return UNAVAILABLE if bad or kernel_says() is False else 0


def bad_subjects(answer: Answer) -> set[str]:
    return {one["subject"] for one in answer.json["findings"] if one["mark"] == "bad"} - {"clock"}


# ── init ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_init_writes_an_example_that_check_accepts_and_overwrites_nothing(tmp_path: Path) -> None:
    written = holdfast(tmp_path, "init")
    path = tmp_path / "agent.yaml"
    assert (written.code, path.stat().st_mode & 0o777) == (0, 0o600)
    assert "holdfast check --config agent.yaml" in written.out
    assert path.read_text(encoding="utf-8") == (ROOT / "config" / "agent.example.yaml").read_text(encoding="utf-8")
    checked = holdfast(tmp_path, "check", "--offline", "--json", "--set", f"data_dir={tmp_path / 'data'}")
    assert (checked.code, bad_subjects(checked)) == (code_of(), set())
    assert finding(checked, "configuration")["text"] == "agent.yaml: 2 devices, 10 tags"

    path.write_text("mine")
    refused = holdfast(tmp_path, "init")
    assert (refused.code, path.read_text()) == (USAGE, "mine")
    assert refused.err == "agent.yaml exists already and was left alone; choose another path, or add --force\n"
    path.chmod(0o644)
    forced, nowhere, folder = each(
        tmp_path, ["init", "--force", "--json"], ["init", "no/such/agent.yaml"], ["init", str(tmp_path)]
    )
    assert (forced.code, forced.json) == (0, {"path": "agent.yaml"})
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server")
    assert (nowhere.code, nowhere.err) == (
        UNAVAILABLE,
        "there is no directory no/such; make it first: mkdir -p no/such\n",
    )
    assert folder.code == USAGE
    assert "is a directory; name the file in it" in folder.err
    assert [found.name for found in tmp_path.iterdir()] == ["agent.yaml"]


# ── the configuration ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_configuration_that_cannot_be_used_is_told_by_every_command(tmp_path: Path) -> None:
    every = (["check"], ["run"], ["status"], ["read", "x"])
    for missing in each(tmp_path, *([*arguments, "--config", "no.yaml"] for arguments in every)):
        assert (missing.code, missing.err) == (CONFIGURATION, "no.yaml: there is no such file; check the path\n")
    none, folder, other = each(
        tmp_path, ["check"], ["check", "--config", str(tmp_path)], ["check", "--config", "/dev/null"]
    )
    assert none.code == folder.code == other.code == CONFIGURATION
    assert "neither ./agent.yaml nor /etc/holdfast/agent.yaml exists" in none.err
    assert "holdfast init" in none.err
    assert folder.err == f"{tmp_path}: this is a directory; name the file in it\n"
    assert "holds no settings" in other.err
    (tmp_path / "agent.yaml").write_bytes(b"gateway:\n  thing: caf\xe9\n")
    latin = holdfast(tmp_path, "check")
    assert (latin.code, latin.err) == (
        CONFIGURATION,
        "agent.yaml:2:13: the byte 0xE9 is not UTF-8; save the file as UTF-8\n",
    )


def test_misspelt_keys_are_told_with_their_place_and_the_right_word(tmp_path: Path, document: Document) -> None:
    document["broker"]["hots"] = document["broker"].pop("host")
    device_of(document, "press-plc")["unitid"] = 2
    device_of(document, "oven-controller")["groups"][0]["tags"][0]["nod"] = "x"
    path = write(tmp_path, document)
    place = {line.strip(): number for number, line in enumerate(path.read_text().splitlines(), 1)}
    said, as_json, by_run, wrong_flag = each(
        tmp_path, ["check"], ["check", "--json"], ["run"], ["check", "--set", "broker.port=high"]
    )
    assert said.code == as_json.code == by_run.code == wrong_flag.code == CONFIGURATION
    assert said.out == ""
    assert (
        f'agent.yaml:{place["unitid: 2"]}:3: devices[1].unitid: unknown key "unitid"; did you mean "unit_id"?'
        in said.err
    )
    assert f'agent.yaml:{place["hots: 127.0.0.1"]}:3: broker.hots: unknown key "hots"; did you mean "host"?' in said.err
    assert 'devices[2].groups[0].tags[0].nod: unknown key "nod"; did you mean "node"?' in said.err
    assert len(said.err.splitlines()) == 4
    assert by_run.err == said.err
    assert as_json.json["error"] == "4 problems in the settings; correct what each names"
    assert {problem["path"] for problem in as_json.json["problems"]} >= {"broker.hots", "devices[1].unitid"}
    assert '--set broker.port: broker.port: expected a whole number, found the text "high"' in wrong_flag.err


def test_where_the_configuration_is_looked_for(tmp_path: Path, document: Document) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path, document).rename(tmp_path / "named.yaml")
    named = str(tmp_path / "named.yaml")
    by_flag = holdfast(tmp_path / "sub", "check", "--offline", "--json", "--config", named)
    by_variable = holdfast(tmp_path / "sub", "check", "--offline", "--json", HOLDFAST_CONFIG=named)
    for answer in (by_flag, by_variable):
        assert finding(answer, "configuration")["text"] == f"{named}: 3 devices, 75 tags"


def test_wrong_usage_is_one_sentence(tmp_path: Path) -> None:
    unknown, version, helped = each(tmp_path, ["chek"], ["--version"], ["--help"])
    assert (unknown.code, unknown.out) == (USAGE, "")
    assert "check" in unknown.err
    assert len(unknown.err.splitlines()) == 1
    assert version.out.startswith("holdfast ")
    assert all(name in helped.out for name in ("init", "check", "read", "run", "status"))


# ── check ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_check_proves_what_is_well_and_names_what_is_not(tmp_path: Path, document: Document) -> None:
    write(tmp_path, document)
    answer = holdfast(tmp_path, "check", "--json")
    assert answer.code == UNAVAILABLE
    assert answer.json["ok"] is False
    assert bad_subjects(answer) == {"solar-plc", "oven-controller"}
    assert finding(answer, "press-plc")["text"] == "22 tags good"
    # Address 42 does not exist: exception 2. Its neighbours are good all the same.
    solar = finding(answer, "solar-plc")
    assert solar["text"] == "39 of 40 tags good"
    assert solar["details"] == [
        (
            "missing_temp: holding 42–43 (40043–40044): the PLC answered exception 2, illegal data address; "
            "check the address and whether this PLC counts from 0 or 1"
        )
    ]
    assert solar["fix"] == "holdfast read solar-plc"
    assert "oxygen: node nsu=urn:holdfast:demo:plant;s=Oven.Oxygen: " in text_of(finding(answer, "oven-controller"))
    mqtt = finding(answer, "broker")
    assert (mqtt["mark"], mqtt["text"].partition(": ")[2]) == (
        "ok",
        "reached, and gw-1-check is let in; MQTT 5, without TLS",
    )
    assert "free, the outbox may take 1.1 GB" in finding(answer, "disk")["text"]
    clock = finding(answer, "clock")
    if clock["mark"] == "bad":
        assert clock["fix"] == "timedatectl set-ntp true"


def test_check_of_a_plant_without_faults_ends_with_0(tmp_path: Path, document: Document) -> None:
    write(tmp_path, only(document, "press-plc"))
    answer = holdfast(tmp_path, "check")
    assert answer.code == code_of()
    assert "✓ press-plc      22 tags good\n" in answer.out
    assert max(map(len, answer.out.splitlines())) <= 80


def test_check_names_device_and_remedy_where_nobody_answers(tmp_path: Path, document: Document) -> None:
    nobody = free_port()
    with socket.socket() as silent:  # takes the connection, and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        device_of(document, "solar-plc").update(port=nobody)
        device_of(document, "press-plc").update(port=silent.getsockname()[1], timeout_s=0.2)
        device_of(document, "oven-controller").update(url=f"opc.tcp://127.0.0.1:{nobody}")
        document["broker"]["port"] = nobody
        write(tmp_path, document)
        answer, read, silent_read = each(
            tmp_path, ["check", "--json"], ["read", "solar-plc"], ["read", "press-plc", "--json"]
        )
    assert bad_subjects(answer) == {"solar-plc", "press-plc", "oven-controller", "broker"}
    solar = finding(answer, "solar-plc")
    assert solar["text"] == f"(modbus 127.0.0.1:{nobody}, unit 1): the connection was refused"
    assert solar["fix"] == "check the address and the port, and that Modbus TCP is enabled"
    press = finding(answer, "press-plc")
    assert "no answer within 0.2 s" in press["text"]
    assert press["fix"] == "check the unit id, and that the PLC is in RUN"
    oven = finding(answer, "oven-controller")
    assert f"(opcua opc.tcp://127.0.0.1:{nobody}): the connection was refused" in oven["text"]
    assert "that the OPC UA server is running" in oven["fix"]
    mqtt = finding(answer, "broker")
    assert mqtt["text"] == f"127.0.0.1:{nobody}: connection refused"
    assert mqtt["fix"] == "check host and port, and that the broker runs"
    assert (read.code, read.out) == (UNAVAILABLE, "")
    assert read.err.startswith(f"solar-plc (modbus 127.0.0.1:{nobody}, unit 1): the connection was refused; ")
    assert silent_read.code == UNAVAILABLE
    assert "no answer within 0.2 s" in silent_read.json["error"]


def test_check_tells_wrong_nodes_types_and_word_orders(tmp_path: Path, document: Document) -> None:
    oven = device_of(only(document, "oven-controller", "press-plc"), "oven-controller")
    tags = {tag["name"]: tag for tag in oven["groups"][0]["tags"]}
    tags["door_open"]["node"] = "nsu=urn:holdfast:demo:plant;s=Oven.Gate"
    tags["program"]["type"] = "float64"
    tags["setpoint"]["node"] = "nsu=urn:another:plant;s=Oven.Setpoint"
    process = device_of(document, "press-plc")["groups"][-1]["tags"]
    next(tag for tag in process if tag["name"] == "oil_temp").update(order="ABCD")  # it is DCBA
    write(tmp_path, document)
    answer, read = each(tmp_path, ["check", "--json"], ["read", "press-plc", "--group", "process"])
    told = text_of(finding(answer, "oven-controller"))
    assert (
        "door_open: node nsu=urn:holdfast:demo:plant;s=Oven.Gate does not exist on the server; check its spelling"
        in told
    )
    assert "program: " in told
    assert "float64" in told
    assert "setpoint: " in told
    assert "urn:another:plant" in told
    press = finding(answer, "press-plc")
    assert press["mark"] == "note"
    assert "is hardly a true value; with order: DCBA it is " in text_of(press)
    for _ in range(20):  # now and then the wrong order gives a value that might be true
        if "! oil_temp: " in read.out:
            break
        [read] = each(tmp_path, ["read", "press-plc", "--group", "process"])
    assert "! oil_temp: " in read.out
    assert "with order: DCBA it is " in read.flat


@pytest.mark.parametrize("given", [{}, {"username": "plant", "password": "not-it"}], ids=["nobody", "wrong-password"])
async def test_check_tells_that_the_broker_lets_nobody_in(
    tmp_path: Path, document: Document, given: dict[str, str]
) -> None:
    users = tmp_path / "users"
    make_user = ["mosquitto_passwd", "-b", "-c", str(users), "plant", "right"]
    await asyncio.to_thread(subprocess.run, make_user, check=True, capture_output=True)
    config = f"allow_anonymous false\npassword_file {users}"
    async with mosquitto(tmp_path / "guarded", config=config) as guarded:
        document["broker"] = {"host": guarded.host, "port": guarded.port, **given}
        write(tmp_path, only(document, "press-plc"))
        answer = await asyncio.to_thread(holdfast, tmp_path, "check", "--json")
    assert (answer.code, bad_subjects(answer)) == (UNAVAILABLE, {"broker"})
    assert "the broker refused client 'gw-1-check': not authorised" in finding(answer, "broker")["text"]
    assert "check username and password_file" in finding(answer, "broker")["fix"]
    assert "not-it" not in answer.out


def test_check_looks_at_the_disk(tmp_path: Path, document: Document, small_disk: Path) -> None:
    only(document, "press-plc")
    (tmp_path / "file").write_text("")
    write(tmp_path, document)
    here = ["check", "--offline", "--json", "--set"]
    in_memory, no_folder, too_small, at_proc = each(
        tmp_path,
        [*here, f"data_dir={small_disk}"],
        [*here, f"data_dir={tmp_path / 'file' / 'data'}"],
        [*here, f"outbox.limit_bytes={1 << 50}"],
        [*here, "data_dir=/proc/holdfast"],
    )
    assert finding(in_memory, "disk")["mark"] in ("note", "bad")  # 16 MB count as full
    assert "Not a directory" in finding(no_folder, "disk")["text"]
    assert finding(no_folder, "disk")["mark"] == "bad"
    assert finding(too_small, "disk")["mark"] == "note"
    assert "lower outbox.limit_bytes" in finding(too_small, "disk")["fix"]
    assert finding(at_proc, "disk")["mark"] == "bad"


# ── read ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_read_shows_value_unit_quality_age_and_address(tmp_path: Path, document: Document) -> None:
    write(tmp_path, document)
    solar, narrow, as_json, oven = each(
        tmp_path,
        ["read", "solar-plc"],
        ["read", "press-plc", "-g", "fast"],
        ["read", "press-plc", "--json"],
        ["read", "oven-controller", "--json"],
    )
    assert solar.code == 0
    rows = {line.split()[0]: line.split() for line in solar.out.splitlines()}
    assert rows["tag"] == ["tag", "value", "unit", "quality", "age", "address"]
    for name, *others in (("tank_setpoint", "65", "°C", "good"), ("missing_temp", "-", "°C", "bad")):
        assert rows[name][:4] == [name, *others]
        assert rows[name][4].isdigit()
        assert rows[name][5] == "s"
    assert (rows["tank_setpoint"][6], rows["missing_temp"][6]) == ("holding:31", "holding:42")
    assert "✗ missing_temp: holding 42–43 (40043–40044): the PLC answered exception 2" in solar.out
    assert max(map(len, solar.out.splitlines())) <= 80
    assert [line.split()[0] for line in narrow.out.splitlines()[1:]] == [
        tag["name"] for tag in device_of(document, "press-plc")["groups"][0]["tags"]
    ]
    tags = {tag["name"]: tag for tag in as_json.json["tags"]}
    assert len(tags) == 22
    assert as_json.json["device"] == "press-plc"
    assert (tags["speed_setpoint"]["value"], tags["speed_setpoint"]["unit"]) == (200, "mm/s")
    assert tags["part_serial"]["value"] >= 9_007_199_254_740_993  # beyond what a double holds
    assert (tags["force"]["group"], tags["force"]["quality"], tags["force"]["reason"]) == ("fast", "good", "")
    told = {tag["name"]: tag for tag in oven.json["tags"]}
    assert (told["oxygen"]["quality"], told["oxygen"]["value"]) == ("bad", None)
    assert "BadSensorFailure" in told["oxygen"]["reason"]
    assert {tag["quality"] for name, tag in told.items() if name not in ("oxygen", "gas_flow")} == {"good"}


def test_read_asks_whether_another_device_was_meant(tmp_path: Path, document: Document) -> None:
    write(tmp_path, document)
    device, other, group = each(
        tmp_path, ["read", "press-pcl"], ["read", "zzz", "--json"], ["read", "press-plc", "-g", "fats"]
    )
    assert (device.code, device.err) == (
        USAGE,
        "there is no device press-pcl in the configuration; did you mean press-plc?\n",
    )
    assert other.code == USAGE
    assert other.json["error"].endswith("; there are solar-plc, press-plc, oven-controller")
    assert (group.code, group.err) == (USAGE, "press-plc has no poll group fats; did you mean fast?\n")


def test_watch_repeats_and_ends_cleanly(tmp_path: Path, document: Document) -> None:
    write(tmp_path, document)
    lines = command("read", "press-plc", "-g", "fast", "--watch", "--interval", "0.1")
    for arguments, is_json in ((lines, False), ([*lines, "--json"], True)):
        process = subprocess.Popen(
            arguments, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(20)]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT_S)
        assert (process.returncode, errors) == (0, "")
        if is_json:
            polls = [json.loads(line) for line in seen]
            assert all(len(poll["tags"]) == 6 for poll in polls)
            assert len({poll["time"] for poll in polls}) > 1
        else:
            assert sum(line.startswith("press-plc fast, every 0.1 s, ") for line in seen) >= 2
            assert not any("\x1b" in line for line in seen)


def test_watch_draws_in_place_on_a_terminal_and_follows_a_plc_that_goes_away(
    tmp_path: Path, document: Document
) -> None:
    document["devices"][1]["port"] = free_port()
    write(tmp_path, document)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command("read", "press-plc", "-g", "fast", "-w"),
        cwd=tmp_path,
        env={**environment(TERM="xterm", LINES="24"), "COLUMNS": "80"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""
    try:
        end_s = time.monotonic() + WAIT_S
        while seen.count(b"Ctrl-C ends.") < 2 or b"refused" not in seen:
            assert time.monotonic() < end_s, seen
            if select.select([ours], [], [], 0.1)[0]:
                seen += os.read(ours, 65536)
        assert stopped_within(process, ours) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    told = seen.decode()
    assert "all tags: press-plc (modbus 127.0.0.1:" in told
    assert "\x1b[" in told
    assert "F" in told.partition("Ctrl-C ends.")[2][:20]  # cursor up to the first line: in place
    assert "Traceback" not in told


def stopped_within(process: subprocess.Popen[bytes], terminal: int) -> int:
    """SIGINT, and read on meanwhile, because a full terminal would hold the process up."""
    process.send_signal(signal.SIGINT)
    wait_for(lambda: process.poll() is not None or drained(terminal), "the end after SIGINT")
    return process.wait(WAIT_S)


def drained(terminal: int) -> bool:
    """Always False: only reads."""
    with contextlib.suppress(OSError):
        if select.select([terminal], [], [], 0)[0]:
            os.read(terminal, 65536)
    return False


def test_ctrl_c_ends_a_command_that_waits(tmp_path: Path, document: Document) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        silent.settimeout(WAIT_S)
        device_of(only(document, "press-plc"), "press-plc").update(port=silent.getsockname()[1], timeout_s=60.0)
        write(tmp_path, document)
        for arguments in (["read", "press-plc"], ["check"]):
            process = subprocess.Popen(
                command(*arguments), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            connection, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=WAIT_S)
            connection.close()
            assert (process.returncode, out, err) == (130, b"", b"")


# ── run and status ──────────────────────────────────────────────────────────────────────────────────────────────────


def status_of(folder: Path) -> Any:
    with contextlib.suppress(OSError, ValueError):
        return json.loads((folder / "data" / "status.json").read_text())
    return {}


def is_connected(folder: Path) -> bool:
    states = status_of(folder).get("status", {}).get("devices", {}).values()
    settled = bool(states) and all(device["state"] != "starting" for device in states)
    stored = status_of(folder).get("status", {}).get("machines", {}).values()
    return settled and any(stored) and str(status_of(folder)["link"]).startswith("connected")


def test_the_life_of_an_agent(tmp_path: Path, document: Document) -> None:
    path = write(tmp_path, only(document, "press-plc", "solar-plc"))
    never = holdfast(tmp_path, "status")
    assert never.code == UNAVAILABLE
    assert "no agent has run with data_dir data" in never.flat
    with agent(tmp_path) as process:
        wait_for(lambda: is_connected(tmp_path), "a connected agent")
        session = status_of(tmp_path)["status"]["session"]
        status, as_json, check, second = each(tmp_path, ["status"], ["status", "--json"], ["check", "--json"], ["run"])
        assert status.code == UNAVAILABLE  # a tag is bad, and nobody receives
        assert "gw-1 in acme/bolzano/plant-1: running for " in status.flat
        assert "✓ press-plc  ok for " in status.out
        assert "✗ solar-plc  bad for " in status.out
        assert "illegal data address" in status.out
        assert max(map(len, status.out.splitlines())) <= 80
        assert (as_json.json["running"], as_json.json["ok"]) == (True, False)
        assert as_json.json["status"]["machines"].keys() == {"press-1", "solar-1"}
        # The check is a guest: the agent keeps its connection, and its outbox.
        assert finding(check, "agent")["text"].startswith("running")
        assert "the running agent uses it" in finding(check, "disk")["text"]
        assert "the running agent says: " in text_of(finding(check, "broker"))
        assert finding(check, "press-plc")["text"] == "22 tags good"
        assert status_of(tmp_path)["status"]["session"] == session
        assert "taken over" not in log_of(tmp_path)
        guest = holdfast(tmp_path, "check", "--json", "--set", f"devices[0].port={free_port()}")
        assert "a PLC that takes a single client refuses this one" in text_of(finding(guest, "solar-plc"))
        assert (second.code, second.out) == (TEMPORARY, "")
        assert "another agent is using it; stop that one first" in second.err.splitlines()[-1]

        # A changed file is taken over at SIGHUP; a wrong one is refused, and the old one stays.
        path.write_text(path.read_text().replace("unit_id: 2", "unitid: 2"))
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: "the old one stays" in log_of(tmp_path), "the refusal")
        assert 'unknown key \\"unitid\\"; did you mean \\"unit_id\\"?' in log_of(tmp_path)
        assert process.poll() is None
        write(tmp_path, only(document, "press-plc"))
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: list(status_of(tmp_path)["status"]["devices"]) == ["press-plc"], "the new configuration")
        wait_for(lambda: is_connected(tmp_path), "the connection with it")

        assert stopped(process) == 0
    after = holdfast(tmp_path, "status")
    assert after.code == UNAVAILABLE
    assert "stopped as planned" in after.flat
    assert "batches lie on disk" in after.flat


def test_a_full_disk_is_told_and_stops_nothing(tmp_path: Path, document: Document, small_disk: Path) -> None:
    document["data_dir"] = str(small_disk / "data")
    document["outbox"] = {"reserve_bytes": 1 << 20}
    (tmp_path / "data").symlink_to(small_disk / "data")
    write(tmp_path, only(document, "press-plc"))
    with agent(tmp_path) as process:
        wait_for(lambda: is_connected(tmp_path), "a connected agent")
        fill(small_disk)
        wait_for(lambda: "the disk is full" in log_of(tmp_path), "the agent's word on the disk")
        full = holdfast(tmp_path, "check", "--offline", "--json")
        disk = finding(full, "disk")
        assert (full.code, disk["mark"], disk["fix"]) == (UNAVAILABLE, "bad", "make room on this disk")
        assert "full, " in disk["text"]
        (small_disk / "others").unlink()
        assert stopped(process) == 0


def test_status_tells_a_dead_agent_from_one_that_cannot_write(tmp_path: Path, document: Document) -> None:
    write(tmp_path, only(document, "press-plc"))
    with agent(tmp_path):
        wait_for(lambda: is_connected(tmp_path), "a connected agent")
    make_old(tmp_path / "data" / "status.json")  # by now it has been killed
    dead = holdfast(tmp_path, "status")
    assert dead.code == UNAVAILABLE
    assert "not running, its last sign of life was 1 h ago" in dead.flat
    assert "journalctl -u holdfast" in dead.flat
    with (tmp_path / "data" / "outbox" / "lock").open("r+") as lock:  # as a running agent does
        fcntl.flock(lock, fcntl.LOCK_EX)
        silent = holdfast(tmp_path, "status")
    assert silent.code == UNAVAILABLE
    assert "it runs, but last wrote its status 1 h ago" in silent.flat
    assert "see whether the disk of data is full" in silent.flat


def make_old(status_file: Path) -> None:
    """As if it had been written an hour ago."""
    told = json.loads(status_file.read_text())
    told["written_s"] = time.time() - 3700
    status_file.write_text(json.dumps(told))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MB that can really be full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    elevated = [] if os.geteuid() == 0 else ["sudo", "-n"]
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m,mode=0777", "holdfast-test", str(disk)]
    subprocess.run([*elevated, *mount], check=True)
    yield disk
    subprocess.run([*elevated, "umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> None:
    """Other people's files take all that is left."""
    with (disk / "others").open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)


def test_run_without_a_usable_outbox_says_so_and_ends_with_75(tmp_path: Path, document: Document) -> None:
    (tmp_path / "file").write_text("")
    document["data_dir"] = str(tmp_path / "file")
    write(tmp_path, only(document, "press-plc"))
    answer = holdfast(tmp_path, "run")
    assert (answer.code, answer.out) == (TEMPORARY, "")
    assert answer.err.splitlines()[-1].startswith(
        f"outbox {tmp_path / 'file' / 'outbox'}: Not a directory; check the path"
    )


def test_run_without_plc_and_broker_runs_and_says_so(tmp_path: Path, document: Document) -> None:
    nobody = free_port()
    document["broker"]["port"] = nobody
    device_of(only(document, "press-plc"), "press-plc")["port"] = nobody
    write(tmp_path, document)

    def is_told() -> bool:
        found = status_of(tmp_path)
        return bool(found.get("trouble")) and found["status"]["devices"]["press-plc"]["state"] == "away"

    with agent(tmp_path) as process:
        wait_for(is_told, "the troubles in the status file")
        status = holdfast(tmp_path, "status")
        assert status.code == UNAVAILABLE
        assert f"✗ broker     not connected: 127.0.0.1:{nobody}: connection refused" in status.out
        assert "→ check host and port, and that the broker runs" in status.out
        assert "✗ press-plc  away for " in status.out
        assert "that Modbus TCP is enabled" in status.flat
        assert stopped(process) == 0


def test_run_tells_systemd_and_loads_nothing_that_it_does_not_need(tmp_path: Path, document: Document) -> None:
    """READY, then the watchdog's ping every second though a message goes out once an hour only, then STOPPING."""
    document["batch"] = {"interval_s": 3600.0}
    write(tmp_path, only(document, "press-plc"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(tmp_path / "notify"))
        supervisor.settimeout(WAIT_S)
        told: list[str] = []
        with agent(
            tmp_path, "--log-json", python=["-X", "importtime"], NOTIFY_SOCKET=str(tmp_path / "notify")
        ) as process:
            while told.count("WATCHDOG=1") < 3:
                told += supervisor.recv(4096).decode().split("\n")
            process.terminate()
            while "STOPPING=1" not in told:
                told += supervisor.recv(4096).decode().split("\n")
            assert process.wait(WAIT_S) == 0
    assert told[0] == "READY=1"
    log = log_of(tmp_path)
    imported = {line.rpartition("|")[2].strip() for line in log.splitlines() if line.startswith("import time:")}
    assert {"agent.main", "diskcache", "paho.mqtt.client", "pymodbus"} <= imported
    assert not imported & {"agent.commands.check", "agent.commands.read", "agent.commands.init"}
    imported.discard("rich")  # asked for and refused; what it would have loaded tells
    assert not [name for name in imported if name.split(".")[0] in ("rich", "asyncua", "aiohttp", "cloud", "demo")]
    events = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert "running" in {event["event"] for event in events}


# ── the service ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze belongs to systemd")
def test_the_service_has_no_warnings_and_is_hardened(tmp_path: Path) -> None:
    text = (ROOT / "systemd" / "holdfast.service").read_text(encoding="utf-8")
    unit = tmp_path / "holdfast.service"
    unit.write_text(text.replace("/opt/holdfast/bin/holdfast", "/bin/true"), encoding="utf-8")
    verified = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)], capture_output=True, text=True
    )
    assert judged.returncode == 0, judged.stdout.splitlines()[-1]


def test_the_service_may_ask_whether_the_clock_is_synchronised() -> None:
    """@privileged forbids adjtimex(2), so the line that allows it again has to be the last one."""
    text = (ROOT / "systemd" / "holdfast.service").read_text(encoding="utf-8")
    filters = [line for line in text.splitlines() if line.startswith("SystemCallFilter=")]
    assert filters[-1].split("=")[1].split()[:2] == ["adjtimex", "clock_adjtime"]
    assert "\nProtectClock=" not in text
