"""The gateway's clock as it is read, asked and remembered. Nobody sets this machine's clock: files say what it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent import clock
from agent.clock import ALWAYS, KERNEL, GatewayClock, kernel_says, moment, synchronised
from agent.vouching import Moment
from protocols.uplink.mark import read


def gateway_clock(folder: Path, changes: list[str] | None = None) -> GatewayClock:
    """It is synchronised once the file `right` is there."""
    noted = [] if changes is None else changes
    return GatewayClock(str(folder / "right"), folder / "clock.json", lambda: noted.append("changed"))


def test_two_clocks_tell_the_same_moment() -> None:
    first, second = moment(), moment()
    assert second.boot_us >= first.boot_us > 0
    assert abs(second.zero_us - first.zero_us) < 50_000 or abs(moment().zero_us - second.zero_us) < 50_000


def test_who_vouches_for_the_clock(tmp_path: Path) -> None:
    assert synchronised(ALWAYS) is True
    assert synchronised(KERNEL) is kernel_says()
    assert synchronised(str(tmp_path / "right")) is False
    (tmp_path / "right").touch()
    assert synchronised(str(tmp_path / "right")) is True


def test_it_marks_until_it_is_synchronised_and_tells_the_zero_hour(tmp_path: Path) -> None:
    changes: list[str] = []
    one = gateway_clock(tmp_path, changes)
    one.look()
    mark = read(one.mark(moment().wall_us) + b"message").clock
    assert mark is not None
    one.marked(3)
    assert (one.status().synchronised, one.status().span, one.status().marked) == (False, mark.span.hex(), 3)
    (tmp_path / "right").touch()
    one.look()
    said = one.status()
    assert (said.synchronised, said.span, said.marked, len(changes)) == (True, "", 0, 2)
    assert abs(said.zeros[mark.span.hex()] - mark.zero_us) < 100_000


def test_what_it_told_is_told_after_a_restart_without_a_word_from_anybody(tmp_path: Path) -> None:
    one = gateway_clock(tmp_path)
    one.look()
    span = one.status().span
    (tmp_path / "right").touch()
    one.look()
    (tmp_path / "right").unlink()
    again = gateway_clock(tmp_path)
    again.look()
    assert again.status().zeros == one.status().zeros and span in one.status().zeros
    assert (again.status().synchronised, again.status().span) == (False, ""), "right since it was synchronised"


def test_whoever_remembers_a_time_hears_that_the_clock_was_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_us: list[int] = []
    moments = [Moment(at * 1_000_000, zero_us + at * 1_000_000) for at, zero_us in ((1, 0), (2, 50_000), (3, 9**9))]
    monkeypatch.setattr(clock, "moment", moments.pop)
    moments.reverse()
    one = GatewayClock(ALWAYS, tmp_path / "clock.json", on_set=by_us.append)
    for _ in range(3):
        one.look()
    assert by_us == [9**9 - 50_000]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"zeros": 3}', '{"zeros": {}, "vouched_us": "x"}'])
def test_a_file_that_is_damaged_is_begun_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "clock.json").write_text(content)
    one = gateway_clock(tmp_path)
    one.look()
    assert one.status().span
    (tmp_path / "right").touch()
    one.look()
    assert json.loads((tmp_path / "clock.json").read_text())["zeros"] == one.status().zeros


def test_a_disk_that_takes_nothing_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "not yet"
    one = GatewayClock(ALWAYS, folder / "clock.json")
    one.look()
    folder.mkdir()
    one.look()
    assert json.loads((folder / "clock.json").read_text())["zeros"] == one.status().zeros


def test_a_system_without_names_for_its_boots_never_takes_one_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "_BOOT_ID", tmp_path / "none")
    assert clock.boot_id() != clock.boot_id()
