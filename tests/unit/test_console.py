"""How commands end and what they print, in this process and in real ones with pipes and terminals; and the logs."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from protocols.program import logs
from protocols.program.console import (
    CONFIGURATION,
    INTERNAL,
    INTERRUPTED,
    UNAVAILABLE,
    USAGE,
    Failure,
    run,
)
from protocols.program.problem import Problem, SettingsError
from protocols.program.terminal import (
    ago,
    clean,
    folded_lines,
    print_json,
    progress,
    shorten,
    size,
    table,
    table_lines,
    width,
)

ROOT = Path(__file__).parents[2]

app = typer.Typer(no_args_is_help=True)
devices = typer.Typer(no_args_is_help=True)
app.add_typer(devices, name="devices")


@app.command()
def poll(count: int, json: bool = False) -> None:
    raise Failure("plc-1 (modbus 10.0.0.5:502, unit 1): no answer within 1 s; check the unit id.", UNAVAILABLE)


@app.command()
def check(problems: int = 2, json: bool = False) -> None:
    raise SettingsError(Problem("a.yaml", line, 3, "broker.host", "is missing") for line in range(1, problems + 1))


@app.command()
def crash() -> None:
    secret = "hunter2"
    raise RuntimeError(f"not for the screen {len(secret)}")


@app.command()
def interrupted() -> None:
    raise KeyboardInterrupt


@app.command()
def socket_broken() -> None:
    raise BrokenPipeError(32, "Broken pipe")


@app.command()
def number() -> int:
    return 7


@app.command()
def leave() -> None:
    raise typer.Exit(3)


@app.command()
def system_exit() -> None:
    sys.exit(4)


@app.command()
def ask() -> None:
    typer.confirm("sure?", abort=True)


@app.command()
def hello() -> None:
    typer.echo("hello")


@devices.command("list")
def list_devices(escape: str = "") -> None:
    raise Failure(f"no device {escape}", UNAVAILABLE)


def command(*argv: str) -> int:
    return run(app, argv, prog="holdfast")


# --- how commands end -----------------------------------------------------------------------------------------------


def test_a_command_that_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("hello") == 0
    assert capsys.readouterr() == ("hello\n", "")


def test_a_failure_is_one_sentence_and_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("poll", "3") == UNAVAILABLE
    sentence = "plc-1 (modbus 10.0.0.5:502, unit 1): no answer within 1 s; check the unit id."
    assert capsys.readouterr() == ("", sentence + "\n")
    assert command("poll", "3", "--json") == UNAVAILABLE
    out, err = capsys.readouterr()
    assert (json.loads(out), err) == ({"error": sentence, "problems": []}, "")


def test_settings_problems_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("check") == CONFIGURATION
    assert capsys.readouterr() == ("", "a.yaml:1:3: broker.host: is missing\na.yaml:2:3: broker.host: is missing\n")
    assert command("check", "--json", "--problems", "1") == CONFIGURATION
    problem = {"file": "a.yaml", "line": 1, "column": 3, "path": "broker.host", "message": "is missing"}
    told = {"error": "1 problem in the settings; correct what each names", "problems": [problem]}
    assert json.loads(capsys.readouterr().out) == told


def test_very_many_problems_leave_the_first_on_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    command("check", "--problems", "200")
    lines = capsys.readouterr().err.splitlines()
    assert (len(lines), lines[-1]) == (51, "… and 150 more problems; correct these first")
    command("check", "--problems", "200", "--json")
    assert len(json.loads(capsys.readouterr().out)["problems"]) == 200


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("pol",), "holdfast: no such command 'pol'. Did you mean 'poll'?; see holdfast --help"),
        (("poll",), "holdfast poll: missing argument 'count'; see holdfast poll --help"),
        (("poll", "3", "--cuont"), "holdfast poll: no such option: --cuont"),
        (("devices", "lst"), "holdfast devices: no such command 'lst'"),
    ],
)
def test_wrong_usage_is_one_sentence(argv: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(*argv) == USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(sentence)
    assert err.count("\n") == 1


def test_wrong_usage_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("poll", "x", "--json") == USAGE
    assert json.loads(capsys.readouterr().out)["error"].startswith("holdfast poll: invalid value for 'count'")
    assert command("poll", "--", "--json") == USAGE  # an argument, not the flag
    assert capsys.readouterr().out == ""


def test_nothing_said_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert command() == USAGE
    out, err = capsys.readouterr()
    assert "Usage: holdfast" in out + err
    assert "NoArgsIsHelp" not in out + err


def test_a_crash_is_a_sentence_and_a_report(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert command("crash") == INTERNAL
    (report,) = tmp_path.iterdir()
    told = f"holdfast: an error of the program itself (RuntimeError); the details are in {report}; please report them\n"
    assert capsys.readouterr() == ("", told)
    assert report.stat().st_mode & 0o777 == 0o600
    text = report.read_text()
    assert "RuntimeError: not for the screen" in text
    assert "hunter2" not in text.replace('secret = "hunter2"', "")  # source lines, no values


def test_a_crash_that_cannot_be_reported_still_is_a_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    assert command("crash") == INTERNAL
    assert "no report could be written (No such file or directory)" in capsys.readouterr().err


def test_a_connections_broken_pipe_is_no_quiet_end(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stdout = sys.stdout
    assert command("socket-broken") == INTERNAL
    assert "(BrokenPipeError)" in capsys.readouterr().err
    assert sys.stdout is stdout


@pytest.mark.parametrize(("name", "code"), [("interrupted", INTERRUPTED), ("number", 7), ("leave", 3)])
def test_other_ends_are_quiet(name: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(name) == code
    assert capsys.readouterr() == ("", "")


def test_sys_exit_passes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command("system-exit")
    assert caught.value.code == 4
    assert capsys.readouterr() == ("", "")


def test_a_no_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", StringIO("n\n"))
    assert command("ask") == 1
    assert capsys.readouterr().err.endswith("cancelled\n")


def test_what_a_stranger_named_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    command("devices", "list", "--escape", "\x1b[2J\u202e")
    assert capsys.readouterr().err == "no device \\x1b[2J\\u202e\n"


# --- real processes -------------------------------------------------------------------------------------------------

PROGRAM = """
import sys, time, typer
from protocols.program.console import progress, run, table
app = typer.Typer()
@app.command()
def lines():
    for number in range(50_000):
        typer.echo(number)
@app.command()
def listing():
    why = "no answer within 1 s; check the unit id, and that the PLC is in RUN"
    rows = [["plc-1", "modbus", "good", 3, ""], ["roboter-süd-halle-7", "opcua", "bad", 120, why], ["温度計", "simulated", "good", 1, None]]
    table(["Device", "Driver", "State", "Tags", "Why"], rows)
@app.command()
def slow():
    with progress("Looking for devices") as shown:
        shown.update("3 of 40")
        time.sleep(0.8)
    typer.echo("found")
@app.command()
def modules():
    from protocols.program import logs
    logs.configure()
    logs.get_logger().info("hello")
    typer.echo(" ".join(sorted({name.split(".")[0] for name in sys.modules})))
@app.command()
def greek():
    sys.stdout.write("Ω …\\n")
sys.exit(run(app, sys.argv[1:], prog="holdfast"))
"""  # noqa: E501  # one row of the table is one line


def start(*argv: str, **more: Any) -> subprocess.Popen[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **more.pop("environ", {})}
    for name in ("NO_COLOR", "COLUMNS"):
        environ.pop(name, None)
    environ.setdefault("TERM", "xterm")
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *argv], env=environ, text=True, **more)


def in_a_terminal(*argv: str, columns: int = 80) -> str:
    """What the command writes to a real terminal of that width, both streams together."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = start(*argv, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    data = b""
    with suppress(OSError), open(master, "rb", buffering=0) as terminal:  # noqa: PTH123  # a descriptor, not a path
        while block := terminal.read(4096):  # EIO is how a terminal ends
            data += block
    assert process.wait(30) == 0
    return data.decode().replace("\r\n", "\n")


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    process = start("lines", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(30) == 0


def test_running_a_command_and_logging_never_load_rich() -> None:
    process = start("modules", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    modules = process.communicate(timeout=30)[0].split()
    assert {"typer", "structlog"} <= set(modules)
    assert not {"rich", "pygments"} & set(modules)


def test_an_old_locale_is_no_crash() -> None:
    process = start("greek", stdout=subprocess.PIPE, environ={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert process.communicate(timeout=30)[0] == "\\u03a9 \\u2026\n"
    assert process.returncode == 0


TABLE_80 = """\
\x1b[1mDevice               Driver     State  Tags  Why\x1b[0m
plc-1                modbus     good      3
roboter-süd-halle-7  opcua      bad     120  no answer within 1 s; check the un…
温度計               simulated  good      1  -
"""


def test_a_table_in_a_terminal_of_80_columns() -> None:
    assert in_a_terminal("listing") == TABLE_80
    assert all(width(re.sub(r"\x1b\[.m", "", line)) <= 80 for line in TABLE_80.splitlines())


def test_a_table_in_a_pipe_is_whole_and_without_colour() -> None:
    process = start("listing", stdout=subprocess.PIPE)
    out = process.communicate(timeout=30)[0]
    assert "\x1b" not in out
    assert "and that the PLC is in RUN\n" in out


def test_progress_shows_on_a_terminal_and_leaves_a_clean_line() -> None:
    seen = in_a_terminal("slow")
    assert "Looking for devices 3 of 40\x1b[K" in seen
    assert seen.endswith("\r\x1b[Kfound\n")


def test_progress_is_silent_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("Looking") as shown:
        shown.update("1 of 2")
    assert capsys.readouterr() == ("", "")


# --- what they print ------------------------------------------------------------------------------------------------


def test_a_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    table(["Tag", "Value", ">Age", "On"], [["a", 1.5, "3 s", True], ["b\x1b[31m\n", None, "2 min", False]])
    assert capsys.readouterr().out.splitlines() == [
        "Tag          Value    Age  On",
        "a              1.5    3 s  yes",
        "b\\x1b[31m\\n      -  2 min  no",
    ]


def test_a_table_without_rows() -> None:
    assert table_lines(["Device", ">Age"], [], 80) == ["Device  Age"]


def test_the_widest_column_gives_way_first_and_numbers_never() -> None:
    rows = [["x" * 30, "y" * 60, 123456789]]
    assert table_lines(["A", "B", "C"], rows, 80)[1] == f"{'x' * 30}  {'y' * 36}…  123456789"
    assert table_lines(["A", "B", "C"], rows, 40)[1] == f"{'x' * 15}…  {'y' * 10}…  123456789"
    assert table_lines(["A", "B", "C"], rows, 10)[1] == f"{'x' * 5}…  {'y' * 5}…  123456789"


@given(st.lists(st.tuples(st.text(max_size=60), st.integers(), st.text(max_size=60)), max_size=4), st.integers(50, 120))
def test_tables_fit_whatever_is_in_them(rows: list[tuple[str, int, str]], cells: int) -> None:
    rows = [(first, number % 10**12, last) for first, number, last in rows]
    lines = table_lines(["First", "Number", "Last"], rows, cells)
    assert len(lines) == len(rows) + 1
    assert all(width(line) <= cells for line in lines)
    assert not any(re.search(r"[\x00-\x1f]", line) for line in lines)


def test_widths() -> None:
    assert (width("abc"), width("ä"), width("a\u0308"), width("温度"), width("🏭"), width("a\u200db")) == (
        3,
        1,
        1,
        4,
        2,
        2,
    )
    assert shorten("温度計", 4) == "温…"
    assert shorten("abcd", 4) == "abcd"
    assert shorten("ab cd", 4) == "ab…"


def test_clean_keeps_text_and_shows_the_rest() -> None:
    assert clean("Straße 温度 🏭") == "Straße 温度 🏭"
    assert clean("a\tb\x00\x9b\u2028") == "a\\tb\\x00\\x9b\\u2028"


class Colour(StrEnum):
    RED = "red"


@dataclass
class Point:
    x: float


class Model(BaseModel):
    at: datetime


def test_any_value_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    value = {
        "model": Model(at=datetime(2026, 11, 30, 6, 30, tzinfo=UTC)),
        "point": Point(float("nan")),
        "colour": Colour.RED,
        "bytes": b"\xff\x00",
        "text": "ä",
        "path": Path("a"),
    }
    print_json(value)
    out = capsys.readouterr().out
    assert json.loads(out) == {
        "model": {"at": "2026-11-30T06:30:00Z"},
        "point": {"x": None},
        "colour": "red",
        "bytes": "ff00",
        "text": "ä",
        "path": "a",
    }
    assert '\n  "text": "ä",\n' in out
    assert out.endswith("}\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.9, "0 s"), (59.9, "59 s"), (60, "1 min"), (150, "2 min"), (3599, "59 min"), (3600, "1 h"),
        (5 * 3600 + 1800, "5 h"), (86400, "1 d"), (9 * 86400 + 4 * 3600, "9 d 4 h"), (-0.5, "0 s"), (-61, "-1 min"),
    ],
)  # fmt: skip
def test_ago(seconds: float, text: str) -> None:
    assert ago(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_234_567, "1.2 MB"), (999_949, "999.9 kB"),
        (999_950, "1.0 MB"), (5 * 10**9, "5.0 GB"), (10**12, "1.0 TB"), (10**18, "1000.0 PB"),
    ],
)  # fmt: skip
def test_size(number: int, text: str) -> None:
    assert size(number) == text


# --- logs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def clean_logging() -> Iterator[None]:
    """The process's logging as it was, afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.usefixtures("clean_logging")
def test_lines_in_a_file_or_a_pipe() -> None:
    stream = StringIO()
    logs.configure(stream=stream)
    log = logs.get_logger(device="plc-1")
    log.debug("not shown")
    log.info("connected", requests=3)
    log.warning("no answer\x1b[2J", error=ValueError("a b"), ok=True)
    logging.getLogger("somelibrary").info("not shown")
    logging.getLogger("somelibrary").warning("odd reply %d", 7)
    time = r"timestamp=\d{4}-\d\d-\d\dT[\d:.]+Z"
    patterns = [
        rf"{time} level=info event=connected device=plc-1 requests=3",
        rf'{time} level=warning event="no answer\\\\x1b\[2J" device=plc-1 error="a b" ok=true',
        rf'{time} level=warning event="odd reply 7" logger=somelibrary',
    ]
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(patterns)
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), line


@pytest.mark.usefixtures("clean_logging")
def test_an_exception_is_one_line_and_at_debug_a_traceback() -> None:
    def log_one(**options: Any) -> str:
        stream = StringIO()
        logs.configure(stream=stream, **options)
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            logs.get_logger().exception("cannot write")
            logging.getLogger("diskcache").exception("cannot write either")
        return stream.getvalue()

    quiet = log_one()
    assert quiet.count("\n") == 2
    assert quiet.count('error="OSError: [Errno 28] No space left on device"') == 2
    assert "Traceback" not in quiet
    assert log_one(level="debug").count("Traceback (most recent call last)") == 2
    assert all("Traceback" in json.loads(line)["exception"] for line in log_one(as_json=True).splitlines())


@pytest.mark.usefixtures("clean_logging")
def test_json_lines() -> None:
    stream = StringIO()
    logs.configure(stream=stream, as_json=True, level="warning")
    logs.get_logger().info("not shown")
    logs.get_logger().warning("ä", path=Path("a"))
    line = stream.getvalue()
    assert '"event": "ä"' in line
    assert list(json.loads(line)) == ["timestamp", "level", "event", "path"]


@pytest.mark.usefixtures("clean_logging")
def test_the_journal_gets_priorities_and_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "journal").open("w") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        logs.configure(stream=stream)
        logs.get_logger().error("disk full", free_bytes=0)
        logging.getLogger("asyncio").critical("gone")
    assert (tmp_path / "journal").read_text() == (
        '<3>level=error event="disk full" free_bytes=0\n<2>level=critical event=gone logger=asyncio\n'
    )


@pytest.mark.usefixtures("clean_logging")
def test_a_terminal_gets_lines_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert re.fullmatch(r"\d\d:\d\d:\d\d \[warning +\] no answer +device=plc-1\n", logged_to_a_terminal())
    monkeypatch.delenv("NO_COLOR")
    assert "\x1b[" in logged_to_a_terminal()


def logged_to_a_terminal() -> str:
    master, slave = pty.openpty()
    with open(slave, "w") as stream, open(master, "rb", buffering=0) as terminal:  # noqa: PTH123  # descriptors
        logs.configure(stream=stream)
        logs.get_logger().warning("no answer", device="plc-1")
        return terminal.read(4096).decode().replace("\r\n", "\n")


@pytest.mark.usefixtures("clean_logging")
def test_a_full_disk_under_the_log_stops_nothing() -> None:
    full = open("/dev/full", "w")  # noqa: PTH123, SIM115  # closing it fails too, which the end of this test expects
    logs.configure(stream=full)
    logs.get_logger().error("x" * 20_000)
    logging.getLogger("asyncio").error("y" * 20_000)
    with suppress(OSError):
        full.close()
    logs.get_logger().error("and after it was closed")
    assert full.closed


@pytest.mark.usefixtures("clean_logging")
async def test_an_exception_nobody_fetched_is_logged() -> None:
    stream = StringIO()
    logs.configure(stream=stream)

    async def fail() -> None:
        raise ValueError("lost")

    task = asyncio.create_task(fail(), name="side task")
    await asyncio.wait({task})
    del task
    assert "ValueError: lost" in stream.getvalue()
    assert "Traceback" not in stream.getvalue()


def test_what_does_not_fit_beside_the_rest_goes_below_it() -> None:
    columns = ["gateway", "plant", ">last beat", "links"]
    rows = [
        ("gw-1", "acme/north/mill", "4 s ago", "3 ok"),
        ("gw-22", "acme/south/quarry", "never", "1 away: silent"),
    ]
    assert folded_lines(columns, rows, 80) == table_lines(columns, rows)
    assert folded_lines(columns, rows, 37) == [
        "gateway  plant              last beat",
        "gw-1     acme/north/mill      4 s ago",
        "    links 3 ok",
        "gw-22    acme/south/quarry      never",
        "    links 1 away: silent",
    ]
    assert max(map(len, folded_lines(columns, rows, 24))) <= 24
