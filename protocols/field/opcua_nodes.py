"""Addresses of OPC UA nodes: how they are written in the configuration, and where they are on a server today.

The text form is the standard's (OPC 10000-6, 5.3.1.10 and 5.3.1.11):

    nsu=urn:plant:press;s=Temperature     namespace by URI: recommended
    ns=2;s=Temperature                    namespace by index: works until the server numbers its namespaces anew
    i=2258                                namespace 0, the standard's own nodes

with `i=` number, `s=` text, `g=` GUID, `b=` bytes in Base64. In a URI `;` is written %3B and `%` is written %25.

A server may number its namespaces differently after a restart, and the same index then names *another* node.
Therefore a namespace is kept as its URI and looked up at every connect. One that was given as an index is
turned into its URI at the first connect, and is safe from then on, until the agent itself restarts.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

Identifier = int | str | UUID | bytes

_FORM = re.compile(r"(?:nsu=(?P<uri>[^;]+);|ns=(?P<index>[0-9]{1,5});)?(?P<kind>[isgb])=(?P<identifier>.+)", re.DOTALL)
_MAX_INDEX = 0xFFFF
_MAX_NUMBER = 0xFFFFFFFF
_MAX_CHARACTERS = 4096  # OPC 10000-3, 8.2.4: the longest identifier that a server has to take


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """A node as configured. `namespace` is a URI, or the index that was given."""

    text: str
    namespace: str | int
    identifier: Identifier

    def pinned(self, namespaces: Sequence[str]) -> NodeAddress:
        """The same node with its namespace by URI, where the server has a namespace of this index."""
        if isinstance(self.namespace, int) and 0 < self.namespace < len(namespaces):
            return replace(self, namespace=namespaces[self.namespace])
        return self

    def index(self, namespaces: Sequence[str]) -> int:
        """The namespace's index in the server's NamespaceArray. ValueError with a sentence when it is not there."""
        if isinstance(self.namespace, int):
            if self.namespace < len(namespaces):
                return self.namespace
            raise ValueError(
                f"node {self.text}: the server has only {len(namespaces)} namespaces, so there is no index "
                f"{self.namespace}; write the namespace's URI instead: nsu=…"
            )
        if self.namespace in namespaces:
            return namespaces.index(self.namespace)
        known = ", ".join(namespaces[1:]) or "none but the standard's"
        raise ValueError(
            f"node {self.text}: the server has no namespace {self.namespace}; check the URI (it has: {known})"
        )


def parse_node(text: str) -> NodeAddress:
    """A node's text form as an address. ValueError with a sentence on one that cannot be."""
    form = _FORM.fullmatch(text)
    if form is None:
        raise ValueError(
            f"{text!r} is no node id; write for example nsu=urn:plant:press;s=Temperature, ns=2;i=1001 or i=2258"
        )
    namespace: str | int
    if form["uri"] is not None:
        namespace = form["uri"].replace("%3B", ";").replace("%3b", ";").replace("%25", "%")
    else:
        namespace = int(form["index"] or 0)
        if namespace > _MAX_INDEX:
            raise ValueError(f"{text!r}: a namespace index is at most {_MAX_INDEX}")
    return NodeAddress(text, namespace, _identifier(text, form["kind"], form["identifier"]))


def _identifier(text: str, kind: str, identifier: str) -> Identifier:
    """The part after `i=`, `s=`, `g=` or `b=`. ValueError with a sentence."""
    if len(identifier) > _MAX_CHARACTERS:
        raise ValueError(f"{text[:40]}…: an identifier has at most {_MAX_CHARACTERS} characters")
    match kind:
        case "i":
            if not re.fullmatch(r"[0-9]{1,10}", identifier) or int(identifier) > _MAX_NUMBER:
                raise ValueError(f"{text!r}: after i= comes a number of 0 to {_MAX_NUMBER}; for a name write s=")
            return int(identifier)
        case "g":
            try:
                return UUID(identifier)
            except ValueError:
                raise ValueError(f"{text!r}: after g= comes a GUID like 09087e75-8e5e-499b-954f-f2a9603db28a") from None
        case "b":
            try:
                return base64.b64decode(identifier, validate=True)
            except (binascii.Error, ValueError):
                raise ValueError(f"{text!r}: after b= come bytes in Base64") from None
        case _:
            return identifier
