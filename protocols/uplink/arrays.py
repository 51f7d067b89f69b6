"""Whole rows as arrays, for those who have numpy (the extra `fast`) and hold their readings so. Pure.

Encoding and decoding with numpy gives and takes the very same bytes, at a few nanoseconds a reading instead of
hundreds; lists of Python's numbers alone cost more than that. numpy is never imported before a block comes by that is
large enough to be worth it, and nothing here needs it: without it, the plain way is taken.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from protocols.uplink.flat import Layout, RowBlock
from protocols.values import Value, ValueType

if TYPE_CHECKING:
    from numpy.typing import NDArray

READINGS_MIN = 5000
"""Of fewer readings a block is encoded and decoded in plain Python, which then takes less than about a millisecond:
that is not worth 20 MB of memory and a tenth of a second for the import."""


@cache
def is_there() -> bool:
    """Whether numpy is installed; it is not imported by asking."""
    try:
        return importlib.util.find_spec("numpy") is not None
    except ValueError:  # sys.modules says that there is none
        return False


def pays(readings: int) -> bool:
    """Whether a block of so many readings is encoded and decoded with numpy."""
    return readings >= READINGS_MIN and is_there()


class ArrayBlock(RowBlock):
    """A block of whole rows, all good, as arrays.

    `values`: for each type that the layout has, those of its tags, in order: of shape (tags of that type, rows), bool,
    int64, uint64, float32 or float64; for texts a list of lists. What is to be encoded may be of any byte order and any
    strides, integers of any width. Nothing is ever written to.
    """

    __slots__ = ("values",)

    values: Mapping[ValueType, Any]

    def __init__(
        self,
        layout: Layout,
        times_us: Sequence[int],
        values: Mapping[ValueType, NDArray[Any] | Sequence[Sequence[str]]],
        patterns: Sequence[int] = (),
    ) -> None:
        super().__init__(layout, times_us, patterns)
        object.__setattr__(self, "values", values)

    def _tag_by_tag(self) -> Sequence[Sequence[Value]]:
        by_tag: list[Any] = [None] * len(self.layout.tags)
        for kind, positions in self.layout.by_type.items():
            found = self.values[kind]
            lists = found if kind is ValueType.STRING else found.tolist()
            for at, values in zip(positions, lists, strict=True):
                by_tag[at] = values
        return by_tag


def from_buffers(scans: Sequence[bytes], dtype: str) -> NDArray[Any]:
    """Values as a device sent them, one buffer per scan, to an array for `ArrayBlock.values`: (values per scan, scans).

    `dtype`: numpy's, with byte order: `>f4` for floats of 32 bits in two registers each, high word first.
    """
    np = importlib.import_module("numpy")
    table: NDArray[Any] = np.frombuffer(b"".join(scans), dtype).reshape(len(scans), -1)
    return table.T
