"""A page's listening socket: had before anything else, so that a port in use is told in one sentence."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket

BACKLOG = 128

_WHY = {
    errno.EADDRINUSE: "the port is in use; stop what listens there, or set {key}.port to another",
    errno.EACCES: "this user may not listen there; choose a port above 1023",
    errno.EADDRNOTAVAIL: "this machine has no such address; set {key}.host to one that it has",
}


class PageError(Exception):
    """The page cannot be served. The message is one sentence; `in_use`: somebody else listens there."""

    def __init__(self, message: str, *, in_use: bool = False) -> None:
        super().__init__(message)
        self.in_use = in_use


def listen(host: str, port: int, *, page: str, key: str) -> socket.socket:
    """A socket that listens there; port 0: any free one. Raises PageError.

    `page`: what it is for; `key`: the settings that say where, for messages.
    """
    where = f"{page} at {host}:{port}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise PageError(
            f"{where}: the host is unknown ({why}); set {key}.host to an address of this machine"
        ) from error
    failure: OSError | None = None
    for family, kind, protocol, _, address in found:
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
        except OSError as error:
            listening.close()
            failure = error
        else:
            return listening
    code = 0 if failure is None else failure.errno or 0
    why = _WHY.get(code, f"it cannot be listened on ({os.strerror(code)}); check {{key}}.host and {{key}}.port")
    raise PageError(f"{where}: {why.format(key=key)}", in_use=code == errno.EADDRINUSE) from failure


def url(host: str, listening: socket.socket) -> str:
    """What to type into a browser on this machine."""
    port = listening.getsockname()[1]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}/"
    if address.is_unspecified:
        return f"http://localhost:{port}/"
    return f"http://[{address}]:{port}/" if address.version == 6 else f"http://{address}:{port}/"
