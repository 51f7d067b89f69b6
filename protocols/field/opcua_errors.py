"""What goes wrong with an OPC UA server, as sentences that say what failed, where, and what to do.

Everything that the library raises passes through here once, and leaves as one of the contract's errors, or as
ServiceFault.
"""

from __future__ import annotations

import errno
import socket
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

from protocols.field.contract import DeviceAway, DeviceRefused, DeviceTimeout, FieldError
from protocols.field.opcua_settings import Settings

if TYPE_CHECKING:
    from protocols.field.opcua_identity import Identity


class Step(StrEnum):
    """How far connecting had come."""

    SOCKET = "socket"
    HELLO = "hello"
    CHANNEL = "secure channel"
    ENDPOINTS = "endpoints"
    SESSION = "session"
    USER = "user"
    SETUP = "setup"


class Bad(IntEnum):
    """Status codes that this driver tells apart (OPC 10000-6, annex A.2)."""

    COMMUNICATION_ERROR = 0x80050000
    ENCODING_LIMITS_EXCEEDED = 0x80080000
    UNKNOWN_RESPONSE = 0x80090000
    TIMEOUT = 0x800A0000
    SHUTDOWN = 0x800C0000
    SERVER_NOT_CONNECTED = 0x800D0000
    SERVER_HALTED = 0x800E0000
    TOO_MANY_OPERATIONS = 0x80100000
    CERTIFICATE_INVALID = 0x80120000
    SECURITY_CHECKS_FAILED = 0x80130000
    CERTIFICATE_TIME_INVALID = 0x80140000
    CERTIFICATE_HOST_NAME_INVALID = 0x80160000
    CERTIFICATE_URI_INVALID = 0x80170000
    CERTIFICATE_USE_NOT_ALLOWED = 0x80180000
    CERTIFICATE_UNTRUSTED = 0x801A0000
    CERTIFICATE_REVOKED = 0x801D0000
    USER_ACCESS_DENIED = 0x801F0000
    IDENTITY_TOKEN_INVALID = 0x80200000
    IDENTITY_TOKEN_REJECTED = 0x80210000
    SECURE_CHANNEL_ID_INVALID = 0x80220000
    SESSION_ID_INVALID = 0x80250000
    SESSION_CLOSED = 0x80260000
    SESSION_NOT_ACTIVATED = 0x80270000
    NODE_ID_INVALID = 0x80330000
    NODE_ID_UNKNOWN = 0x80340000
    ATTRIBUTE_ID_INVALID = 0x80350000
    NOT_READABLE = 0x803A0000
    SECURITY_MODE_REJECTED = 0x80540000
    SECURITY_POLICY_REJECTED = 0x80550000
    TOO_MANY_SESSIONS = 0x80560000
    TCP_SERVER_TOO_BUSY = 0x807D0000
    TCP_MESSAGE_TYPE_INVALID = 0x807E0000
    TCP_SECURE_CHANNEL_UNKNOWN = 0x807F0000
    TCP_MESSAGE_TOO_LARGE = 0x80800000
    TCP_NOT_ENOUGH_RESOURCES = 0x80810000
    TCP_INTERNAL_ERROR = 0x80820000
    TCP_ENDPOINT_URL_INVALID = 0x80830000
    SECURE_CHANNEL_CLOSED = 0x80860000
    SECURE_CHANNEL_TOKEN_UNKNOWN = 0x80870000
    NOT_CONNECTED = 0x808A0000
    DISCONNECT = 0x80AD0000
    CONNECTION_CLOSED = 0x80AE0000
    MAX_CONNECTIONS_REACHED = 0x80B70000
    REQUEST_TOO_LARGE = 0x80B80000
    RESPONSE_TOO_LARGE = 0x80B90000
    TOO_MANY_MONITORED_ITEMS = 0x80DB0000
    FILTER_NOT_ALLOWED = 0x80450000
    MONITORED_ITEM_FILTER_INVALID = 0x80430000
    MONITORED_ITEM_FILTER_UNSUPPORTED = 0x80440000
    DEADBAND_FILTER_INVALID = 0x808E0000
    CERTIFICATE_CHAIN_INCOMPLETE = 0x810D0000
    CERTIFICATE_POLICY_CHECK_FAILED = 0x81140000


_TOO_MUCH = frozenset(
    {Bad.TOO_MANY_OPERATIONS, Bad.REQUEST_TOO_LARGE, Bad.RESPONSE_TOO_LARGE, Bad.ENCODING_LIMITS_EXCEEDED}
)
# After these the session, or the line under it, is of no use any more. A whole request that is denied to the user
# is among them: that is how some servers answer in a session that they gave up.
_ENDS_SESSION = frozenset(
    code
    for code in Bad
    if code.name.startswith(("TCP_", "SECURE_CHANNEL_", "SESSION_", "SERVER_"))
    or code
    in (
        Bad.COMMUNICATION_ERROR,
        Bad.UNKNOWN_RESPONSE,
        Bad.SHUTDOWN,
        Bad.USER_ACCESS_DENIED,
        Bad.NOT_CONNECTED,
        Bad.DISCONNECT,
        Bad.CONNECTION_CLOSED,
    )
)
_BUSY: dict[int, str] = {
    Bad.TOO_MANY_SESSIONS: "all of the server's sessions are taken; close another client or raise its limit",
    Bad.MAX_CONNECTIONS_REACHED: "all of the server's connections are taken; close another client or raise its limit",
    Bad.TCP_SERVER_TOO_BUSY: "the server is too busy; it is tried again",
    Bad.SHUTDOWN: "the server is shutting down; it is tried again",
    Bad.SERVER_HALTED: "the server has stopped; start it",
}
_OTHER_SECURITY = "the server does not offer this security; set security_policy and security_mode to what it offers"
_REFUSED: dict[int, str] = {
    Bad.TCP_ENDPOINT_URL_INVALID: "the server does not know this address; check the path after host and port",
    Bad.SECURITY_MODE_REJECTED: _OTHER_SECURITY,
    Bad.SECURITY_POLICY_REJECTED: _OTHER_SECURITY,
    Bad.SECURITY_CHECKS_FAILED: "the server rejected the connection in its security checks; see the server's log",
}
_REJECTS_US = frozenset({Bad.SECURITY_CHECKS_FAILED, *(code for code in Bad if code.name.startswith("CERTIFICATE_"))})
_WRONG_USER = frozenset({Bad.USER_ACCESS_DENIED, Bad.IDENTITY_TOKEN_INVALID, Bad.IDENTITY_TOKEN_REJECTED})
_NO_DEADBAND = (
    "node {node}: the server cannot apply the deadband to it; remove it, or take an absolute one where percent is set"
)
_NODES: dict[int, str] = {
    Bad.FILTER_NOT_ALLOWED: _NO_DEADBAND,
    Bad.MONITORED_ITEM_FILTER_INVALID: _NO_DEADBAND,
    Bad.MONITORED_ITEM_FILTER_UNSUPPORTED: _NO_DEADBAND,
    Bad.DEADBAND_FILTER_INVALID: _NO_DEADBAND,
    Bad.NODE_ID_UNKNOWN: "node {node} does not exist on the server; check its spelling and its namespace",
    Bad.NODE_ID_INVALID: "node {node} is not a node id that the server takes; check its spelling",
    Bad.ATTRIBUTE_ID_INVALID: "node {node} is no variable, it has no value; choose a variable",
    Bad.NOT_READABLE: "node {node} cannot be read; ask for read access on the server",
    Bad.USER_ACCESS_DENIED: "node {node} may not be read by this user; ask for read access on the server",
    Bad.TOO_MANY_MONITORED_ITEMS: "node {node}: the server can monitor no more; use mode: poll, or fewer tags",
}


class CertificateRejected(DeviceRefused):
    """The server does not take the certificate that we showed; another one of ours may do."""


class ChannelCut(DeviceAway):
    """The server hung up when it saw our certificate, or was switched off just then; another one of ours may do."""


class ServiceFault(Exception):
    """The server refused one request as a whole, and the session lives on. The caller decides what follows."""

    def __init__(self, code: int) -> None:
        super().__init__(status_name(code))
        self.code = code

    @property
    def too_much(self) -> bool:
        """Whether the same request may succeed with fewer nodes."""
        return self.code in _TOO_MUCH


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


def connect_error(
    step: Step,
    error: Exception,
    where: str,
    timeout_s: float,
    settings: Settings | None,
    identity: Identity | None = None,
) -> FieldError:
    """Why connecting failed at this step. `identity`: the certificate that we showed, if any."""
    code = _code(error)
    if code in _BUSY:
        return DeviceAway(f"{where}: {_BUSY[code]}.")
    if step is Step.USER and code is not None and (code in _WRONG_USER or code in _REJECTS_US):
        return DeviceRefused(f"{where}: {_user_sentence(settings)}.")
    if identity is not None and code is not None and code in _REJECTS_US:
        return CertificateRejected(
            f"{where}: the server rejects this gateway's certificate with {status_name(code)}; let it trust "
            f"{identity.public} (SHA-256 {identity.fingerprint})."
        )
    if code in _REFUSED:
        return DeviceRefused(f"{where}: {_REFUSED[code]}.")
    if step is Step.SESSION and "No matching endpoints" in str(error):
        return DeviceRefused(f"{where}: {_OTHER_SECURITY}.")
    if step is Step.SESSION and _is_impostor(error):
        return DeviceRefused(
            f"{where}: the server cannot prove that its certificate is its own ({error!r}); restart it, and if that "
            "does not help, find out who answers in its place."
        )
    if code is not None:
        return DeviceAway(f"{where}: the server refused the {step.value} with {status_name(code)}.")
    if step is Step.USER and not isinstance(error, OSError):  # TimeoutError is an OSError too
        return DeviceRefused(f"{where}: the user cannot be named in the way that the server wants ({error!r}).")
    if identity is not None and step is Step.CHANNEL and not isinstance(error, TimeoutError):
        # Small servers say no by hanging up.
        return ChannelCut(
            f"{where}: the server hung up when the secure channel was opened; check that it trusts {identity.public} "
            f"(SHA-256 {identity.fingerprint}), and both clocks."
        )
    return _unreachable(step, error, where, timeout_s)


def _is_impostor(error: Exception) -> bool:
    """Whether the session's answer does not fit the certificate: another one is in it, or the signature is wrong."""
    return "certificate mismatch" in str(error) or type(error).__name__ == "InvalidSignature"


def _user_sentence(settings: Settings | None) -> str:
    if settings is not None and settings.user_certificate is not None:
        return f"the server rejected the user's certificate {settings.user_certificate}; let the server trust it"
    if settings is None or settings.username is None:
        return "the server does not admit anonymous users; set username and password_file"
    return f"the server rejected user {settings.username}; check username and password"


def _unreachable(step: Step, error: Exception, where: str, timeout_s: float) -> FieldError:
    """Faults of the line and of whoever is at its other end."""
    if isinstance(error, (socket.gaierror, UnicodeError)):  # the latter: no host can be called that
        return DeviceAway(f"{where}: the host name is not known; check it, or write the IP address.")
    if f"[Errno {errno.ECONNREFUSED}]" in str(error):  # in the text, because a name with two addresses gives two errors
        return DeviceAway(
            f"{where}: the connection was refused; check the port, and that the OPC UA server is running."
        )
    if isinstance(error, TimeoutError) and step is Step.SOCKET:
        return DeviceAway(f"{where}: nobody answers within {timeout_s:g} s; check address, cable and firewall.")
    if isinstance(error, OSError) and step is Step.SOCKET:
        return DeviceAway(f"{where}: cannot be reached ({error.strerror or error}); check the network.")
    if step is Step.HELLO:
        did = (
            f"says nothing within {timeout_s:g} s"
            if isinstance(error, TimeoutError)
            else "hangs up or talks differently"
        )
        return DeviceAway(
            f"{where}: whoever listens there {did}; check that this port is an OPC UA server's (opc.tcp)."
        )
    if isinstance(error, TimeoutError):
        return DeviceTimeout(
            f"{where}: no answer to the {step.value} request within {timeout_s:g} s; check the server's load."
        )
    return DeviceAway(f"{where}: the server hung up or answered nonsense at the {step.value} request ({error!r}).")


def service_error(error: Exception, where: str, timeout_s: float) -> FieldError | ServiceFault:
    """Why a request on a working connection failed."""
    code = _code(error)
    if isinstance(error, TimeoutError) or code == Bad.TIMEOUT:
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
