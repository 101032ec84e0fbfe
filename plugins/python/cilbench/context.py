"""What a method may ask of the harness during a call."""

from __future__ import annotations

import dataclasses
from typing import Any, Iterator, Optional, Sequence, Union

from . import _arrays, _wire
from .method import Batch


class HostError(Exception):
    """The harness refused what the method asked of it."""

    def __init__(self, text: str, kind: str = "failed") -> None:
        super().__init__(text)
        self.kind = kind


@dataclasses.dataclass(frozen=True)
class Uniform:
    """The uniform distribution on [low, high)."""

    low: float = 0.0
    high: float = 1.0


@dataclasses.dataclass(frozen=True)
class Exemplar:
    """A stored image: its id, its class, the task it came from, and what was stored with it."""

    id: int
    label: int
    task: int
    payload: Any

    @classmethod
    def of(cls, message: dict, plain: bool) -> "Exemplar":
        """From a message, with a payload that is plain or numpy's."""
        known = _wire.known(message, [field.name for field in dataclasses.fields(cls)], "an exemplar")
        return cls(**{**known, "payload": _arrays.for_method(known["payload"], plain)})


class Context:
    """Passes, draws, probes and the memory of exemplars. Valid during the call it was given to."""

    def __init__(self, channel: _wire.Channel, probing: bool, plain: bool) -> None:
        self._channel = channel
        self._plain = plain
        self.probing = probing
        """Whether the harness observes probes."""

    def _ask(self, request: Any) -> Any:
        self._channel.send({"request": request})
        answer = self._channel.receive()
        if answer is None:
            raise SystemExit(0)  # The harness has ended.
        if "failed" in answer:
            raise HostError(answer["failed"]["text"], answer["failed"]["class"])
        return answer["reply"]

    def _array(self, value: Any) -> Any:
        return _arrays.for_method(value, self._plain)

    def _exemplars(self, reply: dict) -> list[Exemplar]:
        return [Exemplar.of(e, self._plain) for e in reply["exemplars"]]

    def pass_(self, view: str = "test", batch_size: int = 64) -> Iterator[Batch]:
        """One pass over the current task's training images in canonical order.

        `view` is the transform: "test" or "train".
        """
        number = self._ask({"open-pass": {"view": view, "batch_size": batch_size}})["pass"]
        while (batch := self._ask({"next-batch": {"pass": number}})["batch"]) is not None:
            yield Batch.of(batch, self._plain)

    def draw(self, name: str, shape: Sequence[int], law: Union[str, Uniform] = "normal") -> Any:
        """Random numbers of the method's own stream, f32 of this shape.

        `law` is "normal" (standard normal) or `Uniform(low, high)`.

        A name that is drawn again in the same task gives new numbers. Another implementation that
        draws the same names gets the same numbers.
        """
        law = {"uniform": {"low": law.low, "high": law.high}} if isinstance(law, Uniform) else law
        return self._array(self._ask({"draw": {"name": name, "shape": list(shape), "law": law}})["array"])

    def permutation(self, name: str, n: int) -> Any:
        """A random permutation of 0..n, i64 (n)."""
        return self.draw(name, [n], "permutation")

    def given(self, name: str) -> Any:
        """A derived random quantity that a replay prescribes. None in an ordinary run."""
        return self._array(self._ask({"given": {"name": name}})["given"])

    def probe(self, name: str, value: Any) -> None:
        """Shows the harness a quantity, or what `value()` returns.

        Nothing is computed or sent if the harness does not observe probes.
        """
        if self.probing:
            value = value() if callable(value) else value
            self._ask({"probe": {"name": name, "value": _arrays.as_array(value, f"probe '{name}'")}})

    def memorise(self, positions: Sequence[int], payload: Any = None) -> list[Exemplar]:
        """Stores images of the current task by position.

        Each is stored with its row of `payload` (images, …) if there is one.
        """
        rows = None if payload is None else _arrays.as_array(payload, "payload")
        stored = self._ask({"memory": {"insert": {"positions": [int(p) for p in positions], "payload": rows}}})
        return self._exemplars(stored)

    def forget(self, ids: Sequence[int]) -> None:
        """Removes exemplars from the memory."""
        self._ask({"memory": {"remove": {"ids": [int(i) for i in ids]}}})

    def exemplars(self) -> list[Exemplar]:
        """The stored exemplars."""
        return self._exemplars(self._ask({"memory": "list"}))

    def recall(self, ids: Sequence[int], view: str = "train") -> Batch:
        """Reads exemplars as a batch, in this order. The positions of the batch are their ids."""
        read = self._ask({"memory": {"read": {"ids": [int(i) for i in ids], "view": view}}})
        return Batch.of(read["batch"], self._plain)
