"""Frames over two pipes: a fixed head, a JSON message, raw little-endian arrays. See plugins/PROTOCOL.md."""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import Any, Iterable, Optional

from ._arrays import Array, as_array, revive

PROTOCOL = 2
"""The version of the messages."""
REVISION = 0
"""The revision of that version: the number of times that messages got new keys."""

# Magic, where the arrays are (0: behind the message, 1: in the shared file), bytes of the message,
# bytes of the arrays.
HEAD = struct.Struct("<4sIQQ")
MAGIC = b"CILB"
BEHIND, SHARED = 0, 1
ALIGNMENT = 8

_stdin: Optional[int] = None
_stdout: Optional[int] = None


def known(message: dict, keys: Iterable[str], what: str) -> dict:
    """`message`, if all its keys are known. Another key is of a later cilbench and must be understood."""
    unknown = sorted(set(message) - set(keys))
    if unknown:
        raise UnknownKey(
            f"{what} has the key '{unknown[0]}', which this Python package (protocol {PROTOCOL}.{REVISION}) "
            f"does not know and cilbench (protocol {os.environ.get('CILBENCH_PLUGIN', 'unknown')}) sends: "
            "update the package"
        )
    return message


class UnknownKey(Exception):
    """A message has a key that must be understood and is not known."""


def is_plugin() -> bool:
    """Whether a harness started this process."""
    return "CILBENCH_PLUGIN" in os.environ


def take_over_stdout() -> None:
    """Keeps standard input and output for frames.

    Everything else that is written to standard output goes to standard error, line by line. A program
    that the method starts finds standard input empty.
    """
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


class Channel:
    """Frames in and out. Arrays may stand anywhere within a message; those received are `Array`."""

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
        """Opens the file in which the harness leaves large arrays. False if it cannot be read."""
        try:
            self._shared = os.open(path, os.O_RDONLY)
        except OSError:
            return False
        return True

    def receive(self) -> Any:
        """The next message. None when the harness has ended."""
        head = self._read(HEAD.size, at_start=True)
        if head is None:
            return None
        magic, place, message_bytes, array_bytes = HEAD.unpack(head)
        if magic != MAGIC:
            raise ConnectionError(f"this is not a frame of cilbench: it begins with {magic!r}")
        text = bytes(self._read(message_bytes))
        # Every frame has a buffer of its own: its arrays stay valid for as long as the method keeps them.
        arrays = self._read(array_bytes) if place == BEHIND else self._read_shared(array_bytes)

        def hook(value: dict) -> Any:
            # A key with a question mark in front may be skipped, and this revision knows none.
            value = {key: item for key, item in value.items() if not key.startswith("?")}
            return revive(value, arrays) if value.keys() == {"element", "shape", "offset"} else value

        return json.loads(text, object_hook=hook)

    def send(self, message: Any) -> None:
        """Sends a message."""
        arrays: list[tuple[int, Array]] = []
        size = 0

        def describe(value: Any) -> Any:
            nonlocal size
            numpy = sys.modules.get("numpy")
            if numpy is not None and isinstance(value, numpy.generic):
                return value.item()
            array = as_array(value, "message")
            size += -size % ALIGNMENT
            arrays.append((size, array))
            described = {"element": array.element, "shape": list(array.shape), "offset": size}
            size += array.nbytes
            return described

        # Python would write NaN, which is no JSON.
        text = json.dumps(message, default=describe, allow_nan=False).encode()
        self._write(HEAD.pack(MAGIC, BEHIND, len(text), size) + text)
        written = 0
        for offset, array in arrays:
            self._write(bytes(offset - written))
            self._write(array.flat.cast("B"))
            written = offset + array.nbytes

    def _read(self, size: int, at_start: bool = False) -> Any:
        buffer = bytearray(size)
        view, done = memoryview(buffer), 0
        while done < size:
            count = self._in.readinto(view[done:])
            if not count:
                if at_start and done == 0:
                    return None
                raise ConnectionError("the harness ended in the middle of a message")
            done += count
        return buffer

    def _read_shared(self, size: int) -> Any:
        assert self._shared is not None, "no shared file was agreed on"
        buffer = bytearray(size)
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
