"""Node ids as text, and the namespaces of a server."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.field.opcua_nodes import Identifier, parse_node

SERVER = ["http://opcfoundation.org/UA/", "urn:server", "urn:plant:press", "urn:plant:oven"]


@pytest.mark.parametrize(
    ("text", "namespace", "identifier"),
    [
        ("nsu=urn:plant:press;s=Temperature", "urn:plant:press", "Temperature"),
        ("nsu=http://a.b/c?d=e;i=7", "http://a.b/c?d=e", 7),
        ("nsu=urn:a%3Bb%25c;s=x", "urn:a;b%c", "x"),
        ("ns=2;s=Temperature", 2, "Temperature"),
        ("ns=2;s=a;b=c;i=1", 2, "a;b=c;i=1"),
        ('ns=3;s="DB_Press"."Temp"', 3, '"DB_Press"."Temp"'),
        ("s=x", 0, "x"),
        ("i=2258", 0, 2258),
        ("i=4294967295", 0, 4294967295),
        ("ns=1;g=09087e75-8e5e-499b-954f-f2a9603db28a", 1, UUID("09087e75-8e5e-499b-954f-f2a9603db28a")),
        ("ns=1;b=M/RbKBsRVkePCePcx24oRA==", 1, bytes.fromhex("33f45b281b1156478f09e3dcc76e2844")),
    ],
)
def test_reads_the_standards_forms(text: str, namespace: str | int, identifier: Identifier) -> None:
    address = parse_node(text)
    assert (address.text, address.namespace, address.identifier) == (text, namespace, identifier)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Temperature",
        "ns=2;Temperature",
        "nsu=;s=x",
        "nsu=urn:a;ns=2;s=x",
        "ns=65536;s=x",
        "ns=-1;s=x",
        "i=4294967296",
        "i=1e3",
        "i=",
        "s=",
        "g=no-guid",
        "b=*",
        "svr=1;i=5",
        " i=5",
        "s=" + "x" * 4097,
    ],
)
def test_refuses_what_is_none_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w+ \w+ \w+"):
        parse_node(text)


@given(st.text())
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert parse_node(text).text == text


def test_a_uri_has_the_index_that_the_server_gives_it_today() -> None:
    address = parse_node("nsu=urn:plant:press;s=x")
    assert address.index(SERVER) == 2
    assert address.index([*SERVER[:2], "urn:plant:oven", "urn:plant:press"]) == 3
    assert parse_node("nsu=http://opcfoundation.org/UA/;i=2258").index(SERVER) == 0


def test_a_namespace_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"no namespace urn:gone.*urn:server, urn:plant:press, urn:plant:oven"):
        parse_node("nsu=urn:gone;s=x").index(SERVER)
    with pytest.raises(ValueError, match=r"only 4 namespaces.*no index 4"):
        parse_node("ns=4;s=x").index(SERVER)


def test_an_index_is_pinned_to_the_uri_that_it_had_at_first() -> None:
    pinned = parse_node("ns=2;s=x").pinned(SERVER)
    assert pinned.index([*SERVER[:2], "urn:plant:oven", "urn:plant:press"]) == 3
    assert pinned.text == "ns=2;s=x"
    late = parse_node("ns=4;s=x").pinned(SERVER)
    assert late.pinned([*SERVER, "urn:new"]).namespace == "urn:new"
    assert parse_node("i=2258").pinned(SERVER).namespace == 0
