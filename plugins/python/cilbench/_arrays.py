"""Arrays between the wire and a method: numpy's if the method wants them, else plain ones.

Plain arrays need nothing but Python.
"""

from __future__ import annotations

import math
import struct
import sys
from typing import Any, Iterator, Sequence

# By an element's name on the wire: its code in `struct` and `memoryview`, its type in numpy, its
# size in bytes.
ELEMENTS = {
    "f32": ("f", "<f4", 4),
    "f64": ("d", "<f8", 8),
    "f16": ("e", "<f2", 2),
    "i64": ("q", "<i8", 8),
    "u8": ("B", "|u1", 1),
    "u32": ("I", "<u4", 4),
}
_BY_FORMAT = {code: name for name, (code, _, _) in ELEMENTS.items()}
_BY_NUMPY = {typestr: name for name, (_, typestr, _) in ELEMENTS.items()}
_BY_TORCH = {
    "float32": "f32",
    "float64": "f64",
    "float16": "f16",
    "int64": "i64",
    "int32": "i64",
    "uint8": "u8",
    "bool": "u8",
}
# What is sent as another type. Where a C long has 8 bytes, "l" is the code of a 64-bit integer.
_WIDENED = {"?": "u8", "b": "i64", "h": "i64", "i": "i64", "H": "i64", "l": "i64"}


class Array:
    """Numbers of one type in a shape, in C order. `numpy.asarray(array)` shares its memory.

    An array of one dimension yields numbers, one of more dimensions yields arrays; `tolist()` gives nested lists.
    """

    __slots__ = ("element", "shape", "flat")

    def __init__(self, element: str, shape: Sequence[int], buffer: Any) -> None:
        if element not in ELEMENTS:
            raise TypeError(f"an array of {element} cannot be held in Python: run with --dtype f32 or f64")
        if sys.byteorder != "little":
            raise TypeError("arrays are little-endian, and this machine is not")
        code, _, size = ELEMENTS[element]
        data = memoryview(buffer).cast("B")
        if len(data) != math.prod(shape) * size:
            raise ValueError(f"{len(data)} bytes are not an array of {element} of shape {list(shape)}")
        self.element = element
        """f32, f64, f16, i64, u8 or u32."""
        self.shape = tuple(shape)
        """The sizes of its dimensions."""
        # memoryview has no half precision before Python 3.14: its numbers are read by struct.
        self.flat = data if element == "f16" else data.cast(code)
        """All numbers in one dimension, as a memoryview that may be written to; of f16, the bytes."""

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return self.flat.nbytes

    def tolist(self) -> Any:
        """Nested lists of numbers; a number if it has no dimension."""
        numbers = self._numbers()
        for size in reversed(self.shape[1:]):
            starts = range(0, len(numbers), size) if size else [0] * self.shape[0]
            numbers = [numbers[i : i + size] for i in starts]
        return numbers if self.shape else numbers[0]

    def copy(self) -> "Array":
        """The same numbers in memory of their own."""
        return Array(self.element, self.shape, bytearray(self.flat.cast("B")))

    def _numbers(self) -> list:
        if self.element == "f16":
            return list(struct.unpack(f"<{self.nbytes // 2}e", self.flat))
        return self.flat.tolist()

    @property
    def __array_interface__(self) -> dict:
        return {"version": 3, "typestr": ELEMENTS[self.element][1], "shape": self.shape, "data": self.flat.cast("B")}

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("an array without dimensions has no length")
        return self.shape[0]

    def __getitem__(self, index: int) -> Any:
        if not isinstance(index, int):
            raise TypeError("a plain array takes one number as its index; use .flat, .tolist() or numpy for more")
        count = len(self)
        if not -count <= index < count:
            raise IndexError(f"index {index} of an array of {count}")
        size = math.prod(self.shape[1:]) * ELEMENTS[self.element][2]
        start = index % count * size
        part = Array(self.element, self.shape[1:], self.flat.cast("B")[start : start + size])
        return part if part.shape else part.tolist()

    def __iter__(self) -> Iterator:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"cilbench.Array({self.element}, shape {list(self.shape)})"


def revive(described: dict, payload: Any) -> Array:
    """The array that a message describes, in the memory of its payload."""
    element, shape, offset = described["element"], described["shape"], described["offset"]
    if element not in ELEMENTS:
        raise TypeError(f"an array of {element} cannot be held in Python: run with --dtype f32 or f64")
    size = math.prod(shape) * ELEMENTS[element][2]
    return Array(element, shape, memoryview(payload)[offset : offset + size])


def integers(numbers: Sequence[int]) -> Array:
    """An array of i64 (n)."""
    return _of_flat(list(numbers), [len(numbers)], "i64")


def for_method(value: Any, plain: bool) -> Any:
    """An array as a method takes it: plain, or as numpy's, which shares its memory.

    Other values are returned as they are.
    """
    if plain or not isinstance(value, Array):
        return value
    numpy = require_numpy()
    dtype = numpy.dtype(ELEMENTS[value.element][1])
    if value.nbytes == 0:
        return numpy.empty(value.shape, dtype)
    return numpy.frombuffer(value.flat.cast("B"), dtype).reshape(value.shape)


def as_array(value: Any, what: str) -> Array:
    """An array of `value`: a plain or numpy array, a PyTorch tensor, a buffer, or nested numbers.

    `what` names the value in an error.
    """
    if isinstance(value, Array):
        return value
    if hasattr(value, "detach"):  # PyTorch, without importing it
        value = value.detach().cpu()
        if "numpy" not in sys.modules:
            return _of_tensor(value, what)
        value = value.numpy()
    # Where the method uses numpy, numpy knows best what an array is.
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        return _of_numpy(numpy, value, what)
    if isinstance(value, memoryview) or hasattr(value, "typecode"):
        return _of_buffer(memoryview(value), what)
    return _of_numbers(value, what)


def require_numpy() -> Any:
    """The package numpy; an error that says what to do where it is not installed."""
    try:
        import numpy
    except ImportError:
        raise ImportError(
            f"numpy is not installed for {sys.executable}, and this method is handed numpy's arrays: install it, "
            "or set `arrays = \"plain\"` in its class to be handed cilbench.Array"
        ) from None
    return numpy


def _refuse(kind: Any, what: str) -> TypeError:
    return TypeError(f"{what}: an array of type {kind} cannot be sent; convert it to one of {', '.join(ELEMENTS)}")


def _of_numpy(numpy: Any, value: Any, what: str) -> Array:
    array = numpy.asarray(value)
    if array.dtype == numpy.bool_:
        array = array.astype(numpy.uint8)
    elif array.dtype == numpy.int32:
        array = array.astype(numpy.int64)
    dtype = array.dtype.newbyteorder("<")
    element = _BY_NUMPY.get(dtype.str)
    if element is None:
        raise _refuse(array.dtype, what)
    array = numpy.asarray(array, dtype=dtype, order="C")
    return Array(element, array.shape, array.reshape(-1).view(numpy.uint8) if array.size else b"")


def _of_tensor(tensor: Any, what: str) -> Array:
    """The array of a PyTorch tensor where there is no numpy."""
    kind = str(tensor.dtype).rpartition(".")[2]
    element = _BY_TORCH.get(kind)
    if element is None:
        raise _refuse(kind, what)
    return _of_flat(tensor.flatten().tolist(), tuple(tensor.shape), element)


def _of_buffer(view: memoryview, what: str) -> Array:
    element = _BY_FORMAT.get(view.format)
    if element is None and view.format in _WIDENED:
        return _of_flat([int(n) for n in _flatten(view.tolist(), view.shape, what)], view.shape, _WIDENED[view.format])
    if element is None:
        raise _refuse(view.format, what)
    return Array(element, view.shape, view.tobytes())


def _of_numbers(value: Any, what: str) -> Array:
    shape = _shape(value)
    numbers = _flatten(value, shape, what)
    kinds = {type(number) for number in numbers}
    unknown = kinds - {bool, int, float}
    if unknown:
        raise _refuse(sorted(kind.__name__ for kind in unknown)[0], what)
    if kinds == {bool}:
        return _of_flat(numbers, shape, "u8")
    return _of_flat(numbers, shape, "f64" if float in kinds or not kinds else "i64")


def _of_flat(numbers: list, shape: Sequence[int], element: str) -> Array:
    return Array(element, shape, bytearray(struct.pack(f"<{len(numbers)}{ELEMENTS[element][0]}", *numbers)))


def _shape(value: Any) -> tuple:
    """The shape of nested sequences; that of the first ones where they differ."""
    if not isinstance(value, (list, tuple, Array, memoryview)) and not hasattr(value, "typecode"):
        return ()
    return (len(value), *(_shape(value[0]) if len(value) else ()))


def _flatten(value: Any, shape: Sequence[int], what: str) -> list:
    """All numbers of nested sequences of this shape."""
    if not shape:
        return [value]
    if not hasattr(value, "__len__") or len(value) != shape[0]:
        raise TypeError(f"{what}: nested lists of unequal lengths; expected shape {list(shape)} here")
    if len(shape) == 1:
        return list(value)
    return [number for part in value for number in _flatten(part, shape[1:], what)]
