"""sd_notify against real datagram sockets: named, abstract, absent, full."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocols.program import notify


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A bound datagram socket, as systemd has one, and NOTIFY_SOCKET naming it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield receiver


def test_each_word_is_one_datagram(systemd: socket.socket) -> None:
    assert notify.ready("polling 3 devices")
    assert systemd.recv(500) == b"READY=1\nSTATUS=polling 3 devices"
    assert notify.ready()
    assert systemd.recv(500) == b"READY=1"
    assert notify.watchdog()
    assert systemd.recv(500) == b"WATCHDOG=1"
    assert notify.stopping("draining")
    assert systemd.recv(500) == b"STOPPING=1\nSTATUS=draining"
    assert notify.reloading()
    assert re.fullmatch(rb"RELOADING=1\nMONOTONIC_USEC=[0-9]+", systemd.recv(500))


def test_a_status_is_one_line_and_can_be_emptied(systemd: socket.socket) -> None:
    assert notify.status("plc-1 away\nREADY=1 ä\ud800")
    assert systemd.recv(500) == "STATUS=plc-1 away READY=1 ä?".encode()
    assert notify.status("")
    assert systemd.recv(500) == b"STATUS="


def test_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"holdfast-test-{os.getpid()}@1"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name)
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        assert notify.ready()
        assert receiver.recv(500) == b"READY=1"


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative", "/nonexistent/notify", "/" + "x" * 300])
def test_nobody_to_tell_is_no_error(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert notify.ready() is False


def test_without_the_variable_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert notify.watchdog() is False


def test_a_listener_that_does_not_read_never_blocks_us(systemd: socket.socket) -> None:
    sent = 0
    while notify.watchdog():  # until the kernel's queue is full; a blocking send would hang here
        sent += 1
        assert sent < 100_000
    assert sent > 0
    assert systemd.recv(500) == b"WATCHDOG=1"
    assert notify.watchdog()  # and goes on once there is room


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [
        ("30000000", "own", 30.0),
        ("500000", None, 0.5),
        ("30000000", "other", None),
        ("0", "own", None),
        ("soon", None, None),
        (None, None, None),
    ],
)
def test_the_watchdogs_interval(
    usec: str | None, pid: str | None, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = {"own": str(os.getpid()), "other": str(os.getppid())}
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pids[pid] if pid else None)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert notify.watchdog_s() == expected
