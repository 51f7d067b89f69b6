"""An outbox that is copied, put back from a backup, cloned or moved: whether it knows, and what it does then."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from agent.outbox import identity
from agent.outbox.contract import Draft, Encoded, Former, Lane, OutboxFull
from agent.outbox.database import Database
from tests.support.timed_outbox import TimedOutbox


def draft() -> Draft:
    return Draft("m", lambda epoch, seq: Encoded(f"{epoch} {seq}".encode()))


def build(directory: Path, count: int = 3) -> str:
    """Its epoch."""
    outbox = TimedOutbox(directory, reserve_bytes=0)
    outbox.append([draft() for _ in range(count)], 1)
    epoch = outbox.epoch
    outbox.close()
    return epoch


def expect_new_epoch(outbox: TimedOutbox, old: str, what: str) -> None:
    assert outbox.epoch != old
    assert what in outbox.news[0]
    held = outbox.held()[Lane("m", old)]
    assert held.waiting == ((1, 3),), "what is in it keeps its lane and numbers"
    assert [one.payload for one in outbox.pending(Lane("m", old), 1, 9, 9)] == [
        f"{old} {n}".encode() for n in (1, 2, 3)
    ]
    assert outbox.append([draft()], 2) == [1]
    outbox.confirmed(Lane("m", old), 3, (), 1)
    outbox.tend(200_000_000_000)
    assert [lane.epoch for lane in outbox.held()] == [outbox.epoch], "and vanishes when it has drained"
    assert outbox.former(Lane("m", old)) == Former(3, is_damaged=False), "what it gave is remembered"
    epoch = outbox.epoch
    directory = outbox._place.directory
    outbox.close()
    again = TimedOutbox(directory, reserve_bytes=0)
    assert (again.epoch, again.news) == (epoch, ())
    again.close()


def test_a_copy_is_recognised(tmp_path: Path) -> None:
    epoch = build(tmp_path / "o")
    shutil.copytree(tmp_path / "o", tmp_path / "copy")
    original, copied = (TimedOutbox(tmp_path / name, reserve_bytes=0) for name in ("o", "copy"))
    assert (original.epoch, original.news) == (epoch, ())
    assert copied.instance != original.instance
    original.close()
    expect_new_epoch(copied, epoch, "a copy or a restored backup")


def test_a_backup_put_back_over_it_is_recognised(tmp_path: Path) -> None:
    """In place, so that even the files are the same ones."""
    epoch = build(tmp_path / "o")
    backup = {path: path.read_bytes() for path in (tmp_path / "o").rglob("*") if path.is_file()}
    outbox = TimedOutbox(tmp_path / "o", reserve_bytes=0)
    outbox.append([draft()], 2)
    outbox.close()
    for path, content in backup.items():
        path.write_bytes(content)
    expect_new_epoch(TimedOutbox(tmp_path / "o", reserve_bytes=0), epoch, "a copy or a restored backup")


def test_moving_it_on_the_same_file_system_changes_nothing(tmp_path: Path) -> None:
    epoch = build(tmp_path / "o")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "o").rename(tmp_path / "elsewhere" / "o")
    outbox = TimedOutbox(tmp_path / "elsewhere" / "o", reserve_bytes=0)
    assert (outbox.epoch, outbox.news) == (epoch, ())
    outbox.close()


def test_a_crash_between_the_steps_of_opening_is_no_copy(tmp_path: Path) -> None:
    """Written down, but not put in place yet: both markers are good."""
    epoch = build(tmp_path / "o")
    marker = identity.Marker(tmp_path / "o")
    kept = tmp_path / "kept"
    kept.hardlink_to(tmp_path / "o" / "life")
    TimedOutbox(tmp_path / "o", reserve_bytes=0).close()
    kept.replace(tmp_path / "o" / "life")
    assert marker.found() is not None
    outbox = TimedOutbox(tmp_path / "o", reserve_bytes=0)
    assert (outbox.epoch, outbox.news) == (epoch, ())
    outbox.close()


class Machine:
    """What the kernel shows of a machine, as files below a directory."""

    def __init__(self, root: Path, place: Path) -> None:
        self.root = root
        device = place.stat().st_dev
        disk = self._dir("sys/devices/pci/nvme0n1")
        self._write("sys/devices/pci/nvme0n1/p1/partition", "1")
        self._dir("sys/dev/block")
        (root / "sys/dev/block" / f"{os.major(device)}:{os.minor(device)}").symlink_to(disk / "p1")
        self.machine_id("1111")
        self.disk("S3R1AL")
        self.adapter("eth0", "02:00:00:00:00:01")

    def _dir(self, name: str) -> Path:
        (self.root / name).mkdir(parents=True, exist_ok=True)
        return self.root / name

    def _write(self, name: str, text: str) -> None:
        self._dir(str(Path(name).parent))
        (self.root / name).write_text(text + "\n")

    def machine_id(self, value: str) -> None:
        self._write("etc/machine-id", value)

    def disk(self, value: str) -> None:
        self._write("sys/devices/pci/nvme0n1/serial", value)

    def adapter(self, name: str, address: str, is_hardware: bool = True, own: str = "0") -> None:
        self._write(f"sys/class/net/{name}/address", address)
        self._write(f"sys/class/net/{name}/addr_assign_type", own)
        if is_hardware:
            self._dir(f"sys/class/net/{name}/device")

    def signs(self, place: Path) -> dict[str, list[str]]:
        return identity.find_signs(place, self.root)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "root", tmp_path)


def test_a_clone_on_other_hardware_is_recognised(machine: Machine, tmp_path: Path) -> None:
    before = machine.signs(tmp_path)
    assert {name: len(values) for name, values in before.items()} == {"machine": 1, "network": 1, "disk": 1}
    assert "1111" not in str(before), "hashed"
    assert identity.differences(before, before) == []
    machine.disk("0TH3R")
    assert identity.differences(before, machine.signs(tmp_path)) == ["another disk"]
    machine.machine_id("2222")
    machine.adapter("eth0", "02:00:00:00:00:99")
    now = machine.signs(tmp_path)
    assert identity.differences(before, now) == ["another machine", "another disk"]
    assert identity.instance(before, "id") != identity.instance(now, "id")
    assert identity.instance(before, "id") != identity.instance(before, "other id")


def test_what_comes_and_goes_is_no_clone(machine: Machine, tmp_path: Path) -> None:
    before = machine.signs(tmp_path)
    machine.adapter("usb0", "02:00:00:00:00:02")
    machine.adapter("veth1", "02:00:00:00:00:03", is_hardware=False)
    machine.adapter("wlan0", "02:00:00:00:00:04", own="1")
    now = machine.signs(tmp_path)
    assert len(now["network"]) == 2
    assert identity.differences(before, now) == []
    shutil.rmtree(tmp_path / "root")
    assert machine.signs(tmp_path) == {}
    assert identity.differences(now, {}) == []


def test_a_change_of_machine_begins_new_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epoch = build(tmp_path / "o")
    found = identity.find_signs(tmp_path)

    def elsewhere(_directory: Path) -> dict[str, list[str]]:
        return {**found, "machine": ["0123456789abcdef"]}

    monkeypatch.setattr(identity, "find_signs", elsewhere)
    expect_new_epoch(TimedOutbox(tmp_path / "o", reserve_bytes=0), epoch, "another machine")


def test_every_boot_of_the_machine_begins_a_new_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual machine's disk that was set back to a snapshot differs in nothing, but the machine is started."""
    monkeypatch.setattr(identity, "_birth", lambda _: "the same for ever")
    monkeypatch.setattr(identity, "find_boot", lambda: "first")
    before = build(tmp_path / "o")
    shutil.copytree(tmp_path / "o", tmp_path / "snapshot")
    future = TimedOutbox(tmp_path / "o", reserve_bytes=0)
    assert (future.epoch, future.append([draft()], 2)) == (before, [4]), "a program that is started again goes on"
    instance = future.instance
    future.close()
    shutil.rmtree(tmp_path / "o")
    (tmp_path / "snapshot").rename(tmp_path / "o")
    monkeypatch.setattr(identity, "find_boot", lambda: "second")
    again = TimedOutbox(tmp_path / "o", reserve_bytes=0)
    assert (again.news, again.instance) == ((), instance), "nothing to be alarmed about: most boots are just that"
    assert again.epoch != before
    assert again.append([draft()], 2) == [1]
    assert again.held()[Lane("m", before)].waiting == ((1, 3),)
    assert again.held()[Lane("m", before)].last == 3
    again.close()


def test_where_the_kernel_names_no_boot_every_opening_begins_a_new_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "find_boot", lambda: "")
    epochs = {build(tmp_path / "o") for _ in range(3)}
    assert len(epochs) == 3


def test_a_full_disk_does_not_keep_it_from_opening_after_a_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "find_boot", lambda: "first")
    before = build(tmp_path / "o")
    monkeypatch.setattr(identity, "find_boot", lambda: "second")

    def full(*_: object) -> None:
        raise OutboxFull("no space; make some")

    with monkeypatch.context() as disk:
        disk.setattr(Database, "write", full)
        outbox = TimedOutbox(tmp_path / "o", reserve_bytes=0)
    epoch = outbox.epoch
    assert epoch != before
    assert outbox.append([draft()], 2) == [1], "written together with the new epoch"
    outbox.close()
    again = TimedOutbox(tmp_path / "o", reserve_bytes=0)
    assert (again.epoch, again.news) == (epoch, ())
    assert again.append([draft()], 3) == [2]
    again.close()


def test_the_kernel_names_the_boot(tmp_path: Path) -> None:
    assert identity.find_boot(tmp_path) == ""
    place = tmp_path / "proc/sys/kernel/random"
    place.mkdir(parents=True)
    (place / "boot_id").write_text("4d1c\n")
    assert identity.find_boot(tmp_path) not in ("", "4d1c"), "hashed"
