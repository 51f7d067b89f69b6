"""Where a device is, as people type it: 10.0.0.5, plc.local:1502, [fe80::1]:502. Pure."""

from __future__ import annotations

import re

_FORM = re.compile(
    r"(?:\[(?P<six>[^\]\s]+)\]|(?P<host>[^\s:/\[\]]+))(?::(?P<port>[0-9]{1,5}))?|(?P<bare>[0-9a-fA-F:.]+(?:%\w+)?)"
)


def host_and_port(text: str, default_port: int) -> tuple[str, int]:
    """Raises ValueError with a sentence."""
    form = _FORM.fullmatch(text)
    if form is None or (form["bare"] is not None and text.count(":") < 2):
        raise ValueError(f"{text!r} is no address of a device; write 10.0.0.5, 10.0.0.5:1502 or [fe80::1]:502")
    port = int(form["port"]) if form["port"] is not None else default_port
    if not 1 <= port <= 65535:
        raise ValueError(f"{text}: there is no port {port}; ports are 1 to 65535")
    return form["six"] or form["host"] or form["bare"], port
