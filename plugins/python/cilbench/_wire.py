"""Frames over two pipes: a fixed head, a JSON message, raw little-endian arrays. See plugins/PROTOCOL.md."""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import Any, Iterable, Optional

import numpy as np

PROTOCOL = 2
"""The version of the messages."""
REVISION = 0
"""The revision of that version: the number of times that messages got new keys."""

# Magic, where the arrays are (0: behind the message, 1: in the shared file), bytes of the message, bytes of the arrays.
HEAD = struct.Struct("<4sIQQ")
MAGIC = b"CILB"
BEHIND, SHARED = 0, 1
ALIGNMENT = 8

ELEMENTS = {"f32": "<f4", "f64": "<f8", "f16": "<f2", "i64": "<i8", "u8": "|u1", "u32": "<u4"}
NAMES = {np.dtype(code): name for name, code in ELEMENTS.items()}

_stdin: Optional[int] = None
_stdout: Optional[int] = None


def known(plain: dict, keys: Iterable[str], what: str) -> dict:
    """`plain`, if all its keys are known. Any other is of a later cilbench and must be understood."""
    unknown = sorted(set(plain) - set(keys))
    if unknown:
        raise UnknownKey(
            f"{what} has the key '{unknown[0]}', which this Python package (protocol {PROTOCOL}.{REVISION}) "
            f"does not know and cilbench (protocol {os.environ.get('CILBENCH_PLUGIN', 'unknown')}) sends: "
            "update the package"
        )
    return plain


class UnknownKey(Exception):
    """A message has a key that must be understood and is not known."""


def is_plugin() -> bool:
    """Whether a harness started this process."""
    return "CILBENCH_PLUGIN" in os.environ


def take_over_stdout() -> None:
    """Keeps standard input and output for frames. What else is written to standard output goes to standard error, line by line; what else
    reads standard input, as a program that a method starts may do, finds it empty."""
    global _stdin, _stdout
    if is_plugin() and _stdout is None:
        sys.stdout.flush()
        _stdin, _stdout = os.dup(0), os.dup(1)
        os.dup2(2, 1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(line_buffering=True)


def as_array(value: Any, what: str) -> np.ndarray:
    """A contiguous little-endian array of `value`: a numpy array, a PyTorch tensor, or numbers."""
    if hasattr(value, "detach"):  # PyTorch, without importing it
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    elif array.dtype == np.int32:
        array = array.astype(np.int64)
    dtype = array.dtype.newbyteorder("<")
    if dtype not in NAMES:
        raise TypeError(f"{what}: an array of type {array.dtype} cannot be sent; convert it to one of {', '.join(ELEMENTS)}")
    # Not ascontiguousarray, which turns a scalar into an array of one.
    return np.asarray(array, dtype=dtype, order="C")


class Channel:
    """Frames in and out. Arrays are numpy arrays anywhere within a message."""

    def __init__(self, inp: int, out: int) -> None:
        self._in = open(inp, "rb", buffering=0, closefd=False)
        self._out = out
        self._shared: Optional[int] = None

    @classmethod
    def of_process(cls) -> "Channel":
        """The channel to the harness that started this process."""
        take_over_stdout()
        assert _stdin is not None and _stdout is not None, "only a process started by cilbench has a channel"
        return cls(_stdin, _stdout)

    def open_shared(self, path: str) -> bool:
        """Opens the file in which the harness leaves large arrays; false if it cannot be read here."""
        try:
            self._shared = os.open(path, os.O_RDONLY)
        except OSError:
            return False
        return True

    def receive(self) -> Any:
        """The next message; None when the harness has gone."""
        head = self._read(HEAD.size, at_start=True)
        if head is None:
            return None
        magic, place, message_bytes, array_bytes = HEAD.unpack(head)
        if magic != MAGIC:
            raise ConnectionError(f"this is not a frame of cilbench's: it begins with {magic!r}")
        text = bytes(self._read(message_bytes))
        # A buffer of its own for every frame: arrays of a message stay valid for as long as the method keeps them.
        arrays = self._read(array_bytes) if place == BEHIND else self._read_shared(array_bytes)

        def revive(value: dict) -> Any:
            # What begins with a question mark may be skipped, and this revision knows none of it.
            value = {key: item for key, item in value.items() if not key.startswith("?")}
            if value.keys() != {"element", "shape", "offset"}:
                return value
            if value["element"] not in ELEMENTS:
                raise TypeError(f"numpy has no type {value['element']}: run with --dtype f32 or f64")
            dtype = np.dtype(ELEMENTS[value["element"]])
            count = int(np.prod(value["shape"], dtype=np.int64))
            return np.frombuffer(arrays, dtype, count, value["offset"]).reshape(value["shape"])

        return json.loads(text, object_hook=revive)

    def send(self, message: Any) -> None:
        """Sends a message."""
        arrays, size = [], 0

        def describe(value: Any) -> Any:
            nonlocal size
            if isinstance(value, np.generic) and value.ndim == 0:
                return value.item()
            array = as_array(value, "message")
            size += -size % ALIGNMENT
            arrays.append((size, array))
            described = {"element": NAMES[array.dtype], "shape": list(array.shape), "offset": size}
            size += array.nbytes
            return described

        # Python would write NaN, which is no JSON.
        text = json.dumps(message, default=describe, allow_nan=False).encode()
        payload = np.zeros(size, np.uint8)
        for offset, array in arrays:
            payload[offset : offset + array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)
        self._write(HEAD.pack(MAGIC, BEHIND, len(text), size) + text)
        self._write(payload)

    def _read(self, size: int, at_start: bool = False) -> Optional[np.ndarray]:
        buffer = np.empty(size, np.uint8)
        view, done = memoryview(buffer), 0
        while done < size:
            count = self._in.readinto(view[done:])
            if not count:
                if at_start and done == 0:
                    return None
                raise ConnectionError("the harness went away in the middle of a message")
            done += count
        return buffer

    def _read_shared(self, size: int) -> np.ndarray:
        assert self._shared is not None, "no shared file was agreed on"
        buffer = np.empty(size, np.uint8)
        view, done = memoryview(buffer), 0
        while done < size:
            count = os.preadv(self._shared, [view[done:]], done)
            if count == 0:
                raise ConnectionError("the shared file is shorter than the harness says")
            done += count
        return buffer

    def _write(self, data: Any) -> None:
        view = memoryview(data)
        while len(view):
            view = view[os.write(self._out, view) :]
