"""The word to systemd: sd_notify(3) and the watchdog's interval, sd_watchdog_enabled(3), without a library.

Everything is a no-op where NOTIFY_SOCKET is unset, that is, outside a service of `Type=notify`. Sending never blocks
and never raises: a supervisor that does not listen is no reason to stop polling. Each call says whether it was sent.
"""

from __future__ import annotations

import os
import socket
import time


def ready(status: str = "") -> bool:
    """Started, or reloaded."""
    return _send("READY=1", *_status(status))


def reloading() -> bool:
    """The configuration is being read again; `ready` follows."""
    return _send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping(status: str = "") -> bool:
    """Going down; the time limit for stopping counts from here."""
    return _send("STOPPING=1", *_status(status))


def watchdog() -> bool:
    """Still alive. From the loop that does the work, at least twice per `watchdog_s`."""
    return _send("WATCHDOG=1")


def status(text: str) -> bool:
    """One line for `systemctl status`."""
    return _send(f"STATUS={_line(text)}")


def watchdog_s() -> float | None:
    """Within how many seconds systemd wants to hear `watchdog`; None when it does not, or not from this process."""
    interval_us, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not interval_us.isdecimal() or int(interval_us) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(interval_us) / 1_000_000


def _status(text: str) -> list[str]:
    return [f"STATUS={_line(text)}"] if text else []


def _line(text: str) -> str:
    return " ".join(text.split())


def _send(*assignments: str) -> bool:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    if address[0] == "@":
        address = f"\0{address[1:]}"  # an abstract socket, unix(7)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        try:
            sender.sendto("\n".join(assignments).encode(errors="replace"), address)
        except OSError:  # see above: nobody listens, or not fast enough
            return False
    return True
