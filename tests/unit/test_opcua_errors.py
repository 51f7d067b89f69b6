"""Errors as sentences."""

from __future__ import annotations

import socket

import pytest
from asyncua.ua import status_codes
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from protocols.field.contract import DeviceAway, DeviceRefused, DeviceTimeout, FieldError
from protocols.field.opcua_errors import (
    Bad,
    ServiceFault,
    Step,
    connect_error,
    node_sentence,
    service_error,
    status_name,
)
from protocols.field.opcua_inbox import BAD_DATA_LOST
from protocols.field.opcua_settings import Settings


def refusal(code: int) -> UaStatusCodeError:
    return UaStatusCodeError(code)  # type: ignore[no-untyped-call]  # asyncua leaves it without annotations


WHERE = "plc-1 (opcua opc.tcp://10.0.0.5:4840)"


def connecting(step: Step, error: Exception, username: str | None = None) -> FieldError:
    fault = connect_error(step, error, WHERE, 4.0, Settings(url="opc.tcp://10.0.0.5", username=username))
    text = str(fault)
    assert text.startswith(f"{WHERE}: ") and text.endswith(".") and "\n" not in text
    return fault


@pytest.mark.parametrize("code", list(Bad))
def test_our_codes_are_the_standards(code: Bad) -> None:
    name, _ = status_codes.get_name_and_doc(code)
    assert name == "Bad" + "".join(part.capitalize() for part in code.name.split("_"))


def test_a_status_is_named_whatever_its_lower_bits() -> None:
    assert status_name(0x808C0480) == "BadSensorFailure (0x808C0480)"
    assert status_name(0x80FF0000) == "Bad (0x80FF0000)"
    assert status_name(BAD_DATA_LOST) == "BadDataLost (0x809D0000)"


def test_a_node_that_fails_is_named_with_what_to_do() -> None:
    assert node_sentence(Bad.NODE_ID_UNKNOWN, "i=1") == (
        "node i=1 does not exist on the server; check its spelling and its namespace"
    )
    assert node_sentence(0x808C0000, "i=1") == "node i=1: the server reports BadSensorFailure (0x808C0000)"


@pytest.mark.parametrize(
    ("step", "error", "kind", "says"),
    [
        (Step.SOCKET, socket.gaierror(-2, "Name or service not known"), DeviceAway, "host name is not known"),
        (Step.SOCKET, ConnectionRefusedError(111, "Connection refused"), DeviceAway, "check the port"),
        (Step.SOCKET, OSError("Multiple exceptions: [Errno 111] a, [Errno 111] b"), DeviceAway, "check the port"),
        (Step.SOCKET, OSError(113, "No route to host"), DeviceAway, "No route to host"),
        (Step.SOCKET, TimeoutError(), DeviceAway, "within 4 s; check address, cable and firewall"),
        (Step.HELLO, TimeoutError(), DeviceAway, "says nothing within 4 s"),
        (Step.HELLO, ConnectionError("connection lost"), DeviceAway, "hangs up or talks differently"),
        (Step.HELLO, refusal(Bad.TCP_ENDPOINT_URL_INVALID), DeviceRefused, "check the path"),
        (Step.CHANNEL, refusal(Bad.SECURITY_POLICY_REJECTED), DeviceRefused, "does not offer this security"),
        (Step.CHANNEL, ConnectionError("connection lost"), DeviceAway, "hung up"),
        (Step.SESSION, refusal(Bad.TOO_MANY_SESSIONS), DeviceAway, "sessions are taken"),
        (Step.SESSION, UaError("No matching endpoints: None_, uri"), DeviceRefused, "does not offer this security"),
        (Step.SESSION, TimeoutError(), DeviceTimeout, "no answer to the session request within 4 s"),
        (Step.USER, refusal(Bad.MAX_CONNECTIONS_REACHED), DeviceAway, "connections are taken"),
        (Step.USER, refusal(Bad.IDENTITY_TOKEN_REJECTED), DeviceRefused, "anonymous"),
        (Step.USER, refusal(0x80040000), DeviceAway, "refused the user with BadResourceUnavailable"),
        (Step.USER, AttributeError("public_key"), DeviceRefused, "cannot be named"),
        (Step.USER, TimeoutError(), DeviceTimeout, "no answer to the user request"),
    ],
)
def test_connecting_fails_with_a_sentence(step: Step, error: Exception, kind: type[FieldError], says: str) -> None:
    fault = connecting(step, error)
    assert type(fault) is kind
    assert says in str(fault)


def test_a_rejected_user_is_named() -> None:
    fault = connecting(Step.USER, refusal(Bad.USER_ACCESS_DENIED), "operator")
    assert isinstance(fault, DeviceRefused)
    assert "rejected user operator; check username and password" in str(fault)


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (TimeoutError(), DeviceTimeout, "no answer within 4 s"),
        (refusal(Bad.TIMEOUT), DeviceTimeout, "no answer within 4 s"),
        (ConnectionError("Connection is closed"), DeviceAway, "closed the connection"),
        (refusal(Bad.SESSION_ID_INVALID), DeviceAway, "BadSessionIdInvalid"),
        (refusal(Bad.TCP_MESSAGE_TOO_LARGE), DeviceAway, "BadTcpMessageTooLarge"),
        (UaError("x"), DeviceAway, "makes no sense"),
        (KeyError("x"), DeviceAway, "makes no sense"),
    ],
)
def test_a_request_that_ends_the_session(error: Exception, kind: type[FieldError], says: str) -> None:
    fault = service_error(error, WHERE, 4.0)
    assert type(fault) is kind
    assert says in str(fault) and str(fault).endswith(".")


@pytest.mark.parametrize(
    ("code", "too_much"),
    [(Bad.TOO_MANY_OPERATIONS, True), (Bad.RESPONSE_TOO_LARGE, True), (0x80020000, False)],
)
def test_a_request_that_alone_is_refused(code: int, too_much: bool) -> None:
    fault = service_error(refusal(code), WHERE, 4.0)
    assert isinstance(fault, ServiceFault)
    assert (fault.code, fault.too_much) == (code, too_much)
