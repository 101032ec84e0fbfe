"""All that a method may ask of the harness while one of its calls is in progress."""

from __future__ import annotations

import dataclasses
from typing import Any, Iterator, Optional, Sequence, Union

import numpy as np

from . import _wire
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
    """A stored image: its number, class, the task it came from, and what was stored beside it."""

    id: int
    label: int
    task: int
    payload: Optional[np.ndarray]

    @classmethod
    def of(cls, plain: dict) -> "Exemplar":
        """From a message."""
        return cls(**_wire.known(plain, [field.name for field in dataclasses.fields(cls)], "an exemplar"))


class Context:
    """Passes, draws, probes and the memory of exemplars. Valid during the call it was given to."""

    def __init__(self, channel: _wire.Channel, probing: bool) -> None:
        self._channel = channel
        self.probing = probing
        """Whether anyone looks at probes."""

    def _ask(self, request: Any) -> Any:
        self._channel.send({"request": request})
        answer = self._channel.receive()
        if answer is None:
            raise SystemExit(0)  # the harness has gone
        if "failed" in answer:
            raise HostError(answer["failed"]["text"], answer["failed"]["class"])
        return answer["reply"]

    def pass_(self, view: str = "test", batch_size: int = 64) -> Iterator[Batch]:
        """One pass over the current task's training images in canonical order, with the transform "test" or "train"."""
        number = self._ask({"open-pass": {"view": view, "batch_size": batch_size}})["pass"]
        while (batch := self._ask({"next-batch": {"pass": number}})["batch"]) is not None:
            yield Batch.of(batch)

    def draw(self, name: str, shape: Sequence[int], law: Union[str, Uniform] = "normal") -> np.ndarray:
        """Random numbers of the method's own stream, f32 of this shape: standard normal, or `Uniform(low, high)`.

        The same name drawn again in one task gives new numbers; another implementation that draws the same names gets the same numbers.
        """
        law = {"uniform": {"low": law.low, "high": law.high}} if isinstance(law, Uniform) else law
        return self._ask({"draw": {"name": name, "shape": list(shape), "law": law}})["array"]

    def permutation(self, name: str, n: int) -> np.ndarray:
        """A random permutation of 0..n, i64 (n)."""
        return self.draw(name, [n], "permutation")

    def given(self, name: str) -> Optional[np.ndarray]:
        """A derived random quantity, if the harness prescribes it (a replay does); in an ordinary run None."""
        return self._ask({"given": {"name": name}})["given"]

    def probe(self, name: str, value: Any) -> None:
        """Shows the harness a quantity, or what `value()` returns; nothing is computed or sent if nobody looks."""
        if self.probing:
            value = value() if callable(value) else value
            self._ask({"probe": {"name": name, "value": _wire.as_array(value, f"probe '{name}'")}})

    def memorise(self, positions: Sequence[int], payload: Any = None) -> list[Exemplar]:
        """Stores images of the current task, by position, each with a row of `payload` (images, …) beside it if there is one."""
        rows = None if payload is None else _wire.as_array(payload, "payload")
        stored = self._ask({"memory": {"insert": {"positions": [int(p) for p in positions], "payload": rows}}})
        return [Exemplar.of(e) for e in stored["exemplars"]]

    def forget(self, ids: Sequence[int]) -> None:
        """Forgets exemplars."""
        self._ask({"memory": {"remove": {"ids": [int(i) for i in ids]}}})

    def exemplars(self) -> list[Exemplar]:
        """The stored exemplars."""
        return [Exemplar.of(e) for e in self._ask({"memory": "list"})["exemplars"]]

    def recall(self, ids: Sequence[int], view: str = "train") -> Batch:
        """Reads exemplars as a batch, in this order; its positions are their ids."""
        return Batch.of(self._ask({"memory": {"read": {"ids": [int(i) for i in ids], "view": view}}})["batch"])
