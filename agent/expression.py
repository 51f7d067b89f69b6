"""Arithmetic over tags, as in `(inlet - outlet) * 4.19 * flow`: read and checked once, evaluated with every read.

The evaluator is simpleeval, which walks the syntax tree and knows no more than it is given here. Before that this
module checks each part of the tree against a short list, so that a mistake shows when the configuration is read, and
nothing can run away: powers are powers of floats, texts are only compared, and there is no repetition of any kind.

A tag stands by its name; one whose name is not made of letters, digits and _ stands in braces: {Motor.Speed}.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from simpleeval import InvalidExpression, SimpleEval

from protocols.values import Value, ValueType

LENGTH_MAX = 500
DEPTH_MAX = 40

_BRACES = re.compile(r"\{([^{}]*)\}")
_STAND_IN = "ø"  # no tag's name has this letter

_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: math.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def _round(value: float, digits: float = 0) -> float:
    return round(float(value), max(-400, min(400, int(digits))))


# Name → function, least and most arguments.
_FUNCTIONS: dict[str, tuple[Callable[..., Any], int, int]] = {
    "abs": (abs, 1, 1),
    "ceil": (math.ceil, 1, 1),
    "cos": (math.cos, 1, 1),
    "exp": (math.exp, 1, 1),
    "floor": (math.floor, 1, 1),
    "log": (math.log, 1, 1),
    "log10": (math.log10, 1, 1),
    "max": (max, 2, 100),
    "min": (min, 2, 100),
    "round": (_round, 1, 2),
    "sin": (math.sin, 1, 1),
    "sqrt": (math.sqrt, 1, 1),
    "tan": (math.tan, 1, 1),
}
FUNCTION_NAMES = tuple(_FUNCTIONS)
_CALLED = {name: function for name, (function, _, _) in _FUNCTIONS.items()}
_KINDS = {ValueType.BOOL: "truth", ValueType.STRING: "text"}
_WORDS = {"truth": "a condition", "text": "a text", "number": "a number"}


class Expression:
    """`names`: the tags that it is made of, each once, in the order in which they appear."""

    def __init__(self, text: str) -> None:
        """Raises ValueError with a sentence on what is no expression."""
        self.text = text
        self._tags: dict[str, str] = {}  # what stands in the tree → tag
        plain = _BRACES.sub(self._stand_in, text.replace("\n", " ")).strip()
        try:
            self._tree = _parsed(plain)
        except ValueError as error:
            raise ValueError(self._told(error)) from None
        for node, depth in _walk(self._tree):
            if depth > DEPTH_MAX:
                raise ValueError("it is nested too deeply; make several derived tags of it")
            if isinstance(node, ast.Name):
                self._tags.setdefault(node.id, node.id)
        self.value_type({})
        self.names = tuple(dict.fromkeys(self._tags.values()))
        if not self.names:
            raise ValueError("it names no tag; a derived tag is made of at least one other")
        self._evaluator = SimpleEval(_OPERATORS, _CALLED, {})

    def _stand_in(self, found: re.Match[str]) -> str:
        name = found[1].strip()
        stand_in = next((mine for mine, tag in self._tags.items() if tag == name), f"{_STAND_IN}{len(self._tags)}")
        self._tags[stand_in] = name
        return f" {stand_in} "

    def _told(self, error: ValueError) -> str:
        """The sentence with the tags' own names."""
        return re.sub(rf"{_STAND_IN}\d+", lambda found: f"{{{self._tags.get(found[0], found[0])}}}", str(error))

    def value_type(self, types: Mapping[str, ValueType]) -> ValueType:
        """BOOL of a condition, else FLOAT64. `types`: of the tags; one that is not there may be of any type.

        Raises ValueError with a sentence where something is done with a text or a condition that takes a number.
        """
        kinds = {mine: _KINDS.get(types[tag], "number") for mine, tag in self._tags.items() if tag in types}
        try:
            kind = _kind(self._tree, kinds)
        except ValueError as error:
            raise ValueError(self._told(error)) from None
        if kind == "text":
            raise ValueError("its value is a text; a derived tag is a number or a condition")
        return ValueType.BOOL if kind == "truth" else ValueType.FLOAT64

    def value(self, values: Sequence[Value]) -> float | bool:
        """Of tags with these values, in the order of `names`. Raises ArithmeticError, ValueError or TypeError."""
        by_name = dict(zip(self.names, values, strict=True))
        self._evaluator.names = {mine: by_name[tag] for mine, tag in self._tags.items()}
        try:
            found = self._evaluator.eval(self.text, previously_parsed=self._tree)
        except InvalidExpression as error:  # what was checked before does not come to this
            raise ValueError(str(error)) from error
        if isinstance(found, bool):
            return found
        number = float(found)
        if not math.isfinite(number):
            raise OverflowError("the result is too large")
        return number


def _parsed(text: str) -> ast.expr:
    if len(text) > LENGTH_MAX:
        raise ValueError(f"it has more than {LENGTH_MAX} characters; make several derived tags of it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what Python finds odd, such as 2if
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        near = _near(error) if isinstance(error, SyntaxError) else ""
        hint = "write it as (a - b) / 2, and {names.like-this} in braces"
        if text.count("(") > text.count(")"):
            hint = "a bracket is not closed; inside of YAML's { } an expression with a comma needs quotes"
        raise ValueError(f"it is no expression{near}; {hint}") from None


def _near(error: SyntaxError) -> str:
    rest = (error.text or "")[max(0, (error.offset or 1) - 1) :].strip()
    return f" near {rest[:20]!r}" if rest else ""


def _walk(node: ast.expr) -> Iterator[tuple[ast.expr, int]]:
    """The expression and all that it is made of, from left to right, with how deep that is. No names of functions."""
    waiting = [(node, 0)]
    while waiting:
        here, depth = waiting.pop()
        yield here, depth
        parts = [one for one in ast.iter_child_nodes(here) if isinstance(one, ast.expr)]
        if isinstance(here, ast.Call):
            parts.remove(here.func)
        waiting += [(one, depth + 1) for one in reversed(parts)]


def _kind(node: ast.expr, kinds: Mapping[str, str]) -> str:
    """`number`, `truth`, `text`, or `any`. Raises ValueError on what is not on the list."""
    match node:
        case ast.Name():
            return kinds.get(node.id, "any")
        case ast.Constant(value=str()):
            return "text"
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool) and math.isfinite(value):
            return "number"
        case ast.BinOp() if type(node.op) in _OPERATORS:
            _need(node, "number", kinds, node.left, node.right)
            return "number"
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            _need(node, "number", kinds, node.operand)
            return "number"
        case ast.UnaryOp(op=ast.Not()):
            _need(node, "truth", kinds, node.operand)
            return "truth"
        case ast.BoolOp():
            _need(node, "truth", kinds, *node.values)
            return "truth"
        case ast.Compare() if all(type(one) in _OPERATORS for one in node.ops):
            return _compared(node, kinds)
        case ast.IfExp():
            _need(node, "truth", kinds, node.test)
            return _same(node, kinds, node.body, node.orelse)
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _FUNCTIONS:
            _, least, most = _FUNCTIONS[name]
            if not least <= len(node.args) <= most:
                count = "one value" if most == 1 else f"{least} to {most} values"
                raise ValueError(f"{name} takes {count} in brackets")
            _need(node, "number", kinds, *node.args)
            return "number"
        case ast.Call(func=ast.Name(id=name)) if name not in _FUNCTIONS:
            raise ValueError(f"there is no function {name}; there are {', '.join(FUNCTION_NAMES)}")
    known = "+ - * / // % **, comparisons, and, or, not, if … else, and functions"
    raise ValueError(f"{_source(node)} cannot be used; there are {known}")


def _compared(node: ast.Compare, kinds: Mapping[str, str]) -> str:
    kind = _same(node, kinds, node.left, *node.comparators)
    if kind in ("text", "truth") and not all(isinstance(one, ast.Eq | ast.NotEq) for one in node.ops):
        raise ValueError(f"{_source(node)}: {_WORDS[kind]} can be compared with == and != only")
    return "truth"


def _need(node: ast.expr, wanted: str, kinds: Mapping[str, str], *parts: ast.expr) -> None:
    for part in parts:
        kind = _kind(part, kinds)
        if kind not in (wanted, "any"):
            raise ValueError(f"{_source(part)} is {_WORDS[kind]}, and {_source(node)} needs {_WORDS[wanted]}")


def _same(node: ast.expr, kinds: Mapping[str, str], *parts: ast.expr) -> str:
    found = {kind for part in parts if (kind := _kind(part, kinds)) != "any"}
    if len(found) > 1:
        raise ValueError(f"{_source(node)} mixes {' and '.join(_WORDS[kind] for kind in sorted(found))}")
    return found.pop() if found else "any"


def _source(node: ast.expr) -> str:
    return ast.unparse(node)[:60]
