"""What a reading can be: value, type and quality. The words that `field` and `uplink` have in common."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar

Value = bool | int | float | str | None
"""What a tag can hold. `None` only with bad quality."""


class ValueType(StrEnum):
    """How a tag's values are published, after scaling."""

    BOOL = "bool"
    INT = "int"  # signed, 64 bits
    UINT = "uint"  # unsigned, 64 bits
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    STRING = "string"


class Quality:
    """The OPC UA status codes that we give ourselves. Any other code of a server passes through unchanged."""

    GOOD = 0x00000000
    UNCERTAIN = 0x40000000
    BAD = 0x80000000
    BAD_COMMUNICATION = 0x80050000  # the exchange failed: line cut, malformed answer
    BAD_TIMEOUT = 0x800A0000  # no answer within the deadline
    BAD_WAITING_FOR_INITIAL_DATA = 0x80320000  # monitored, nothing received yet
    BAD_NODE_ID_UNKNOWN = 0x80340000
    BAD_OUT_OF_RANGE = 0x803C0000  # an address, or a value, outside what exists or can be carried
    BAD_NOT_SUPPORTED = 0x803D0000  # the device does not know this function
    BAD_TYPE_MISMATCH = 0x80740000
    BAD_CONFIGURATION = 0x80890000
    BAD_NOT_CONNECTED = 0x808A0000
    BAD_DEVICE_FAILURE = 0x808B0000

    _NAMES: ClassVar[Mapping[int, str]] = {
        GOOD: "Good",
        UNCERTAIN: "Uncertain",
        BAD: "Bad",
        BAD_COMMUNICATION: "BadCommunicationError",
        BAD_TIMEOUT: "BadTimeout",
        BAD_WAITING_FOR_INITIAL_DATA: "BadWaitingForInitialData",
        BAD_NODE_ID_UNKNOWN: "BadNodeIdUnknown",
        BAD_OUT_OF_RANGE: "BadOutOfRange",
        BAD_NOT_SUPPORTED: "BadNotSupported",
        BAD_TYPE_MISMATCH: "BadTypeMismatch",
        BAD_CONFIGURATION: "BadConfigurationError",
        BAD_NOT_CONNECTED: "BadNotConnected",
        BAD_DEVICE_FAILURE: "BadDeviceFailure",
    }

    @staticmethod
    def word(code: int) -> str:
        """`good`, `uncertain` or `bad`."""
        return ("good", "uncertain", "bad", "bad")[(code >> 30) & 3]

    @classmethod
    def name(cls, code: int) -> str:
        """The standard's name where it is one of ours, otherwise word and hexadecimal code."""
        return cls._NAMES.get(code) or f"{cls.word(code)} (0x{code:08X})"
