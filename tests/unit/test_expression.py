"""Expressions: what they mean, what is refused with which sentence, and that nothing in them runs away."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.expression import Expression
from protocols.values import Value, ValueType


def value(text: str, **tags: Value) -> float | bool:
    expression = Expression(text)
    return expression.value([tags[name] for name in expression.names])


@pytest.mark.parametrize(
    ("text", "tags", "result"),
    [
        ("(a - b) * 4.19 * c", {"a": 80.0, "b": 60.0, "c": 0.5}, 41.9),
        ("a / b", {"a": 1, "b": 4}, 0.25),
        ("a // b + a % b", {"a": 7, "b": 4}, 4.0),
        ("a ** 2", {"a": 3}, 9.0),
        ("-a + +b", {"a": 3, "b": 1}, -2.0),
        ("max(a, b, 3) - min(a, b)", {"a": 5, "b": 1}, 4.0),
        ("round(a, 1) + round(b)", {"a": 1.26, "b": 2.6}, 4.3),
        ("sqrt(a) + abs(b) + floor(1.5) + ceil(1.5)", {"a": 9, "b": -2}, 8.0),
        ("log10(a) + log(exp(b))", {"a": 100, "b": 1}, 3.0),
        ("a if b > 3 else c", {"a": 1, "b": 4, "c": 2}, 1.0),
        ("0 < a < 10 and not b", {"a": 5, "b": False}, True),
        ("state == 'running' or a != 3", {"state": "off", "a": 3}, False),
        ("a == b", {"a": True, "b": True}, True),
        ("a\n + b", {"a": 1, "b": 2}, 3.0),
        ("a - b", {"a": 2**63, "b": 2**63 - 1}, 1.0),  # whole numbers are exact
    ],
)
def test_what_an_expression_is_worth(text: str, tags: Mapping[str, Value], result: float | bool) -> None:
    found = value(text, **tags)
    assert type(found) is type(result)
    assert found == pytest.approx(result)


def test_names_of_any_form_stand_in_braces() -> None:
    expression = Expression("{Motor.Speed} * {Axes[1]} - {Motor.Speed} + {in} - x_1")
    assert expression.names == ("Motor.Speed", "Axes[1]", "in", "x_1")
    assert expression.value([10, 3, 5, 1]) == 24.0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a +", "it is no expression"),
        (
            "round((a + b) / 2",
            "near '((a + b) / 2'; a bracket is not closed; inside of YAML's { } an expression with a comma",
        ),
        ("{a.b} {c.d}", "near '{c.d}'; write it as"),
        ("2 + 3", "names no tag"),
        ("a.real", "a.real cannot be used"),
        ("a[0]", "cannot be used"),
        ("a & 1", "cannot be used"),
        ("[a for b in c]", "cannot be used"),
        ("lambda: a", "cannot be used"),
        ("a := 3", "it is no expression"),
        ("a == None", "None cannot be used"),
        ("a + 1e999", "cannot be used"),
        ("a + 1j", "cannot be used"),
        ("f'{a}'", "cannot be used"),
        ("open(a)", "there is no function open; there are abs,"),
        ("__import__('os').system(a)", "cannot be used"),
        ("max(a)", "max takes 2 to 100 values"),
        ("max(*a)", "max takes 2 to 100 values"),
        ("abs(a, b)", "abs takes one value in"),
        ("a and 3", "3 is a number, and a and 3 needs a condition"),
        ("(a > 1) + 2", "a > 1 is a condition, and (a > 1) + 2 needs a number"),
        ("'x' * 99999999 + a", "'x' is a text"),
        ("a < 'x'", "a text can be compared with == and != only"),
        ("a if b else 'x'", "its value is a text"),
        ("a == 1 or a == 'x' == 2", "mixes a number and a text"),
        ("-" * 100 + "a", "nested too deeply"),
        ("(" * 300 + "a" + ")" * 300, "it"),
        ("a" + "+a" * 400, "more than 500 characters"),
        ("a\x00b", "it is no expression"),
        ("", "it is no expression"),
    ],
)
def test_what_is_no_expression_is_refused_in_words(text: str, says: str) -> None:
    with pytest.raises(ValueError) as raised:
        Expression(text)
    assert says in str(raised.value)


def test_types_are_known_before_anything_is_read() -> None:
    types = {"level": ValueType.INT, "pump": ValueType.BOOL, "state": ValueType.STRING}
    assert Expression("level * 2").value_type(types) is ValueType.FLOAT64
    assert Expression("pump and state == 'on'").value_type(types) is ValueType.BOOL
    for text, says in {
        "level + state": "state is a text, and level + state needs a number",
        "pump * 2": "pump is a condition, and pump * 2 needs a number",
        "level and pump": "level is a number, and level and pump needs a condition",
        "state": "its value is a text",
        "{level} - {state}": "{level} - {state} needs a number",
    }.items():
        with pytest.raises(ValueError) as raised:
            Expression(text).value_type(types)
        assert says in str(raised.value)


@pytest.mark.parametrize(
    ("text", "tags", "error"),
    [
        ("a / b", {"a": 1, "b": 0}, ZeroDivisionError),
        ("a // b", {"a": 1.0, "b": 0.0}, ZeroDivisionError),
        ("a ** b", {"a": 10, "b": 10**18}, OverflowError),
        ("9 ** 9 ** 9 ** 9 + a", {"a": 1}, OverflowError),
        ("a * b", {"a": 1e300, "b": 1e300}, OverflowError),
        ("sqrt(a)", {"a": -1}, ValueError),
        ("a ** 0.5", {"a": -1}, ValueError),
        ("floor(a)", {"a": math.nan}, ValueError),
        ("a + b", {"a": 1, "b": "text"}, TypeError),
        ("a + 0.5", {"a": 10**400}, OverflowError),
    ],
)
def test_what_cannot_be_computed_raises(text: str, tags: Mapping[str, Value], error: type[Exception]) -> None:
    with pytest.raises(error):
        value(text, **tags)


def test_rounding_to_any_number_of_digits_takes_no_time() -> None:
    assert value("round(a, -10 ** 17)", a=12345) == 0.0
    assert value("round(a, b)", a=1.5, b=10**18) == 1.5


atoms = st.sampled_from(["a", "b", "{c.d}", "2", "0", "1e308", "99999999999999999999", "0.5", "'x'", "True", "-3"])


def combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.sampled_from([*"+-*/%<&@", "//", "**", "==", "!=", ">=", "and", "or", "<<", "if", "is", "in"])
    function = st.sampled_from(["abs", "max", "round", "exp", "floor", "log", "open", "sqrt"])
    return st.one_of(
        st.tuples(inner, binary, inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(function, inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
        st.tuples(function, inner).map(lambda t: f"{t[0]}({t[1]})"),
        st.tuples(inner, inner, inner).map(lambda t: f"({t[0]} if {t[1]} else {t[2]})"),
        inner.map(lambda one: f"not -{one}"),
    )


values = st.one_of(
    st.floats(), st.integers(-(2**64), 2**64), st.booleans(), st.text(max_size=3), st.none(), st.just(10**4000)
)


@given(
    st.one_of(st.recursive(atoms, combined, max_leaves=12), st.text(max_size=40)),
    st.lists(values, min_size=3, max_size=3),
)
@example("a ** b ** {c.d}", [10**18, 10**18, 10**18])
@example("floor(1e308) * floor(1e308) * a", [10**18, 1, 1])
def test_whatever_is_written_and_read_it_is_a_finite_number_a_condition_or_one_of_few_errors(
    text: str, given_values: list[Value]
) -> None:
    try:
        expression = Expression(text)
    except ValueError:
        return
    try:
        found = expression.value(given_values[: len(expression.names)] + [1] * (len(expression.names) - 3))
    except (ArithmeticError, ValueError, TypeError):
        return
    assert isinstance(found, bool) or (isinstance(found, float) and math.isfinite(found))
