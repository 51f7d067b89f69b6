"""At which step a fault sits, by the sentences that drivers really say."""

from __future__ import annotations

import errno
import socket

import pytest

from agent.toolbox.walk import Step, concerns, counted, step_of_tag, step_when_away
from protocols.field.modbus import TagSettings, tag
from protocols.field.modbus_address import Table
from protocols.field.modbus_errors import absent, exception, no_connection, verdict
from protocols.field.modbus_line import Link
from protocols.field.modbus_plan import Block, Span
from protocols.field.opcua import TagSettings as NodeSettings
from protocols.field.opcua import tag as node_tag
from protocols.field.opcua_errors import Step as Opcua
from protocols.field.opcua_errors import connect_error, service_error

LINK = Link("tcp", "lean", "h", 502, 1.0)


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (socket.gaierror(-2, "unknown"), Step.HOST),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), Step.TCP),
        (TimeoutError(), Step.TCP),
        (OSError(errno.EHOSTUNREACH, "no route"), Step.TCP),
    ],
)
def test_modbus_connections(error: OSError, step: Step) -> None:
    assert step_when_away(f"plc (modbus h:502, unit 1): {no_connection(error, LINK)}") is step


@pytest.mark.parametrize(
    ("at", "error", "step"),
    [
        (Opcua.SOCKET, socket.gaierror(-2, "unknown"), Step.HOST),
        (Opcua.SOCKET, ConnectionRefusedError(errno.ECONNREFUSED, "refused"), Step.TCP),
        (Opcua.SOCKET, TimeoutError(), Step.TCP),
        (Opcua.SOCKET, OSError(errno.EHOSTUNREACH, "no route"), Step.TCP),
        (Opcua.HELLO, TimeoutError(), Step.SESSION),
        (Opcua.SESSION, ConnectionResetError(), Step.SESSION),
        (Opcua.SESSION, TimeoutError(), Step.SESSION),
    ],
)
def test_opcua_connections(at: Opcua, error: Exception, step: Step) -> None:
    assert step_when_away(str(connect_error(at, error, "oven (opcua u)", 4.0, None))) is step


def test_a_line_that_breaks_is_about_the_session() -> None:
    assert step_when_away(str(service_error(OSError(), "oven (opcua u)", 4.0))) is Step.SESSION
    assert step_when_away("whatever a third party says") is Step.SESSION


@pytest.mark.parametrize(("code", "step"), [(1, Step.ADDRESS), (2, Step.ADDRESS), (10, Step.UNIT), (11, Step.UNIT)])
def test_exceptions(code: int, step: Step) -> None:
    assert step_of_tag(f"holding 1 (40002): {exception(code)[1]}") is step


def modbus(address: str, **keys: object) -> object:
    return tag(TagSettings.model_validate({"name": "t", "address": address, **keys})).address


def test_what_is_no_number_is_about_decoding() -> None:
    point = tag(TagSettings.model_validate({"name": "t", "address": "holding:1", "type": "float32"})).address
    for number in (float("nan"), float("inf")):
        assert step_of_tag(absent(point, point.encoding, number)) is Step.DECODE


def test_a_value_that_means_none_and_a_unit_that_is_silent() -> None:
    point = tag(TagSettings.model_validate({"name": "t", "address": "holding:1"})).address
    assert step_of_tag(absent(point, point.encoding, "32768, which means that it has no value")) is Step.DECODE
    assert step_of_tag("holding 1 (40002): the device sent 7, which `states` does not name") is Step.DECODE
    silent = "plc (modbus 10.0.0.5:502, unit 7): no answer within 1 s; check the unit id, and that the PLC is in RUN."
    assert step_of_tag(silent) is Step.UNIT
    assert step_of_tag("unit 9: not asked yet, because other units here do not answer; it will be") is Step.UNIT


def test_a_reason_is_about_the_tags_that_its_block_covers() -> None:
    block = Block((0,), (Span(1, Table.HOLDING, 10, 4),))
    said = verdict(block, 2, 1)[1]
    assert concerns(said, modbus("holding:13"), 1) is True
    assert concerns(said, modbus("holding:9", type="float32"), 1) is True
    assert concerns(said, modbus("holding:14"), 1) is False
    assert concerns(said, modbus("input:10"), 1) is False
    assert concerns(said, modbus("holding:10", unit_id=2), 1) is False
    other = verdict(Block((0,), (Span(2, Table.HOLDING, 10, 1),)), 2, 1)[1]
    assert concerns(other, modbus("holding:10"), 1) is False
    assert concerns(other, modbus("holding:10", unit_id=2), 1) is True
    node = node_tag(NodeSettings.model_validate({"name": "n", "node": "ns=2;s=A", "type": "bool"})).address
    assert concerns("node ns=2;s=A does not exist on the server; check it", node, None) is True
    assert concerns("node ns=2;s=B does not exist on the server; check it", node, None) is False
    assert concerns("anything", object(), None) is None


def test_what_the_agent_counts() -> None:
    assert counted("one tag fails: holding 1 (40002): x") == (True, "holding 1 (40002): x")
    assert counted("3 tags fail, such as: node y") == (False, "node y")
    assert counted("else") == (False, "else")
