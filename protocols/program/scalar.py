"""What an unquoted word of a settings file means. Pure.

YAML 1.1, as PyYAML reads it, turns `no` into False, `010` into 8 and `12:30:00` into 45000. Here a word is a value
only when nobody could read it otherwise; whatever some YAML program reads differently is refused with a sentence.

    nothing, null, ~      None
    true, false           boolean
    0, -7, 1883           whole number, within 64 bits
    0.5, -1.5, 1e3        number
    any other             text, dates too
"""

from __future__ import annotations

import math
import re

Scalar = bool | int | float | str | None

_CONSTANTS: dict[str, Scalar] = {"": None, "~": None, "null": None, "true": True, "false": False}
_INT = re.compile(r"-?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_INT_MAX = 2**64 - 1
_NUMBER_FIRST = frozenset("0123456789+-.")

_ON_OFF = re.compile(r"yes|no|on|off", re.IGNORECASE)
_OTHER_CASE = re.compile(r"true|false|null", re.IGNORECASE)
_OTHER_BASE = re.compile(r"[-+]?0([xX][0-9a-fA-F][0-9a-fA-F_]*|o[0-7][0-7_]*|b[01][01_]*)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+(\.[0-9_]*)?")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_UNDERSCORES = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|nan)", re.IGNORECASE)
_ODD_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


class Ambiguous(ValueError):
    """The word can be read in more than one way, or does not fit; the message says what to write instead.

    The message quotes the word: without one, the error says the same of a word that is not to be shown.
    """

    def __init__(self, message: str = "this can be read in more than one way; put quotes around it") -> None:
        super().__init__(message)


def resolve(text: str) -> Scalar:
    """The value of an unquoted word, blanks around it already gone. Raises Ambiguous."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in _NUMBER_FIRST:
        _refuse_ambiguous_name(text)
        return text
    if _INT.fullmatch(text):
        # The length first: Python refuses to convert thousands of digits.
        if len(text) > 21 or abs(int(text)) > _INT_MAX:
            raise Ambiguous(f"{_short(text)} does not fit into 64 bits; write a smaller number, or quotes around it")
        return int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise Ambiguous(f"{_short(text)} is beyond every number; write a smaller one, or quotes around it")
        return number
    _refuse_ambiguous_number(text)
    return text


def _refuse_ambiguous_name(text: str) -> None:
    if _ON_OFF.fullmatch(text):
        word = "true" if text.lower() in ("yes", "on") else "false"
        raise Ambiguous(f'{text} could be a text or a boolean; write {word}, or "{text}" in quotes')
    if _OTHER_CASE.fullmatch(text):
        raise Ambiguous(f'{text} could be a text or a value; write {text.lower()}, or "{text}" in quotes')


def _refuse_ambiguous_number(text: str) -> None:
    shown = _short(text)
    if _NOT_FINITE.fullmatch(text):
        raise Ambiguous(f"{shown} is no finite number; write a number, or put quotes around it")
    if _OTHER_BASE.fullmatch(text):
        raise Ambiguous(f"{shown} is not decimal; write {_decimal(text)}, or put quotes around it")
    if _LEADING_ZERO.fullmatch(text):
        raise Ambiguous(f"{shown} begins with a zero, which some programs read as octal; {_plain(text)}")
    if _SEXAGESIMAL.fullmatch(text):
        raise Ambiguous(f"{shown} could be a time of day or a number to base 60; put quotes around it")
    if "_" in text and _UNDERSCORES.fullmatch(text):
        raise Ambiguous(f"{shown} could be a text or a number; {_plain(text)}")
    if _ODD_NUMBER.fullmatch(text):
        raise Ambiguous(f"{shown} is an unusual way to write a number; {_plain(text)}")


def _plain(text: str) -> str:
    digits = text.replace("_", "")
    number = float(digits)
    if len(digits) > 17 or math.isinf(number):
        return "write it with plain digits, or put quotes around it"
    whole = re.fullmatch(r"[-+]?[0-9]+", digits)
    return f"write {int(digits) if whole else number}, or put quotes around it"


def _decimal(text: str) -> str:
    return str(int(text.replace("_", ""), 0)) if len(text) <= 18 else "it in decimal"


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:39] + "…"
