"""What goes wrong with an OPC UA server, as sentences that say what failed, where, and what to do.

The codes are those of OPC 10000-4, annex A, and OPC 10000-6, annex A.2. Everything that the library raises passes through here
once, and leaves as one of the contract's errors, or as ServiceFault.
"""

from __future__ import annotations

import socket
from enum import StrEnum

from protocols.field.contract import DeviceAway, DeviceRefused, DeviceTimeout, FieldError


class Step(StrEnum):
    """How far connecting had come."""

    SOCKET = "socket"
    HELLO = "hello"
    CHANNEL = "secure channel"
    SESSION = "session"
    USER = "user"
    SETUP = "setup"


class ServiceFault(Exception):
    """The server refused one request as a whole, and the session lives on. The caller decides what follows."""

    def __init__(self, code: int) -> None:
        super().__init__(status_name(code))
        self.code = code

    @property
    def too_much(self) -> bool:
        """Whether the same request may succeed with fewer nodes."""
        return self.code in _TOO_MUCH


BAD_TIMEOUT = 0x800A0000
_TOO_MUCH = frozenset({
    0x80100000,  # BadTooManyOperations
    0x80B80000,  # BadRequestTooLarge
    0x80B90000,  # BadResponseTooLarge
    0x80080000,  # BadEncodingLimitsExceeded
})
# After these the session, or the line under it, is of no use any more.
_ENDS_SESSION = frozenset({
    0x80050000,  # BadCommunicationError
    0x80090000,  # BadUnknownResponse
    0x800C0000,  # BadShutdown
    0x800D0000,  # BadServerNotConnected
    0x800E0000,  # BadServerHalted
    0x801F0000,  # BadUserAccessDenied: of a whole request, a session that the server gave up
    0x80220000,  # BadSecureChannelIdInvalid
    0x80250000,  # BadSessionIdInvalid
    0x80260000,  # BadSessionClosed
    0x80270000,  # BadSessionNotActivated
    0x80860000,  # BadSecureChannelClosed
    0x80870000,  # BadSecureChannelTokenUnknown
    0x808A0000,  # BadNotConnected
    0x80AD0000,  # BadDisconnect
    0x80AE0000,  # BadConnectionClosed
    *range(0x807D0000, 0x80840000, 0x10000),  # BadTcp…
})
_BUSY = {
    0x80560000: "all of the server's sessions are taken; close another client or raise the server's limit",  # BadTooManySessions
    0x80B70000: "all of the server's connections are taken; close another client or raise the server's limit",  # BadMaxConnectionsReached
    0x807D0000: "the server is too busy; it is tried again",  # BadTcpServerTooBusy
    0x800C0000: "the server is shutting down; it is tried again",  # BadShutdown
    0x800E0000: "the server has stopped; start it",  # BadServerHalted
}
_REFUSED = {
    0x80830000: "the server does not know this address; check the path after host and port",  # BadTcpEndpointUrlInvalid
    0x80540000: "the server demands an encrypted connection; let it offer an endpoint without security",  # BadSecurityModeRejected
    0x80550000: "the server demands an encrypted connection; let it offer an endpoint without security",  # BadSecurityPolicyRejected
    0x80130000: "the server rejected the connection in its security checks; see the server's log",  # BadSecurityChecksFailed
}
_WRONG_USER = frozenset({
    0x801F0000,  # BadUserAccessDenied
    0x80200000,  # BadIdentityTokenInvalid
    0x80210000,  # BadIdentityTokenRejected
})
_NODES = {
    0x80340000: "node {node} does not exist on the server; check its spelling and its namespace",  # BadNodeIdUnknown
    0x80330000: "node {node} is not a node id that the server takes; check its spelling",  # BadNodeIdInvalid
    0x80350000: "node {node} is no variable, it has no value; choose a variable",  # BadAttributeIdInvalid
    0x803A0000: "node {node} cannot be read; ask for read access on the server",  # BadNotReadable
    0x801F0000: "node {node} may not be read by this user; ask for read access on the server",  # BadUserAccessDenied
    0x80DB0000: "node {node}: the server can monitor no more nodes; use mode: poll or fewer tags",  # BadTooManyMonitoredItems
}


def status_name(code: int) -> str:
    """The standard's name of a status code, with the code."""
    # Not at the top: the library's names cost a heavy import, and whoever holds a status code has paid for it.
    from asyncua.ua import status_codes

    name, _ = status_codes.get_name_and_doc(code & 0xFFFF0000)
    return f"{name} (0x{code:08X})"


def node_sentence(code: int, node: str) -> str:
    """What a status code that is not good says of a node."""
    known = _NODES.get(code & 0xFFFF0000)
    return known.format(node=node) if known else f"node {node}: the server reports {status_name(code)}"


def connect_error(step: Step, error: Exception, where: str, timeout_s: float, username: str | None) -> FieldError:
    """Why connecting failed at this step."""
    code = _code(error)
    if code in _BUSY:
        return DeviceAway(f"{where}: {_BUSY[code]}.")
    if step is Step.USER and code in _WRONG_USER:
        return DeviceRefused(f"{where}: {_user_sentence(username)}.")
    if code in _REFUSED:
        return DeviceRefused(f"{where}: {_REFUSED[code]}.")
    if step is Step.SESSION and "No matching endpoints" in str(error):
        return DeviceRefused(f"{where}: {_REFUSED[0x80550000]}.")
    if code is not None:
        return DeviceAway(f"{where}: the server refused the {step.value} with {status_name(code)}.")
    if step is Step.USER and not isinstance(error, OSError):  # TimeoutError is an OSError too
        return DeviceRefused(f"{where}: the password cannot be sent in the way that the server wants ({error!r}).")
    return _unreachable(step, error, where, timeout_s)


def _user_sentence(username: str | None) -> str:
    if username is None:
        return "the server does not admit anonymous users; set username and password_file"
    return f"the server rejected user {username}; check username and password"


def _unreachable(step: Step, error: Exception, where: str, timeout_s: float) -> FieldError:
    """Faults of the line and of whoever is at its other end."""
    if isinstance(error, socket.gaierror):
        return DeviceAway(f"{where}: the host name is not known; check it, or write the IP address.")
    if isinstance(error, ConnectionRefusedError):
        return DeviceAway(f"{where}: the connection was refused; check the port, and that the OPC UA server is running.")
    if isinstance(error, TimeoutError) and step is Step.SOCKET:
        return DeviceAway(f"{where}: nobody answers within {timeout_s:g} s; check address, cable and firewall.")
    if isinstance(error, OSError) and step is Step.SOCKET:
        return DeviceAway(f"{where}: cannot be reached ({error.strerror or error}); check the network.")
    if step is Step.HELLO:
        did = f"says nothing within {timeout_s:g} s" if isinstance(error, TimeoutError) else "hangs up or talks differently"
        return DeviceAway(f"{where}: whoever listens there {did}; check that this port is an OPC UA server's (opc.tcp).")
    if isinstance(error, TimeoutError):
        return DeviceTimeout(f"{where}: no answer to the {step.value} request within {timeout_s:g} s; check the server's load.")
    return DeviceAway(f"{where}: the server hung up or answered nonsense at the {step.value} request ({error!r}).")


def service_error(error: Exception, where: str, timeout_s: float) -> FieldError | ServiceFault:
    """Why a request on a working connection failed."""
    code = _code(error)
    if isinstance(error, TimeoutError) or code == BAD_TIMEOUT:
        return DeviceTimeout(f"{where}: no answer within {timeout_s:g} s; check the server's load and the network.")
    if code is not None and code not in _ENDS_SESSION:
        return ServiceFault(code)
    if code is not None:
        return DeviceAway(f"{where}: the server ended the session with {status_name(code)}; it is connected again.")
    if isinstance(error, OSError):
        return DeviceAway(f"{where}: the server closed the connection; it is connected again.")
    return DeviceAway(f"{where}: the server's answer makes no sense ({error!r}); it is connected again.")


def _code(error: Exception) -> int | None:
    """The status code of a refusal by the server; None for every other error."""
    code = getattr(error, "code", None)
    return code if isinstance(code, int) and code & 0x80000000 else None
