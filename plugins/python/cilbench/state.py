"""What a method carries: named arrays, each marked with its kind."""

from __future__ import annotations

import dataclasses
from typing import Any

from ._arrays import as_array, for_method


@dataclasses.dataclass
class Entry:
    """One array of a state and its kind."""

    kind: str
    value: Any


def trained(value: Any) -> Entry:
    """A weight that training changes."""
    return Entry("trained", value)


def statistic(value: Any) -> Entry:
    """A statistic of past data, as class means or covariances. A training step may not change it."""
    return Entry("statistic", value)


def optimiser(value: Any) -> Entry:
    """The optimiser's moments and counters."""
    return Entry("optimiser", value)


def buffer(value: Any) -> Entry:
    """Anything else that must be kept, as counters or flags."""
    return Entry("buffer", value)


def pack(state: Any) -> dict:
    """A state in the form that is sent."""
    if not isinstance(state, dict):
        raise TypeError(f"state() returned {type(state).__name__}; return a dict of names to trained(…), statistic(…), optimiser(…) or buffer(…)")
    for name, entry in state.items():
        if name.startswith("?"):
            raise ValueError(f"state(): '{name}': a name cannot begin with a question mark")
        if not isinstance(entry, Entry):
            raise TypeError(f"state(): '{name}' is not marked: wrap it in trained(…), statistic(…), optimiser(…) or buffer(…)")
    return {name: {"kind": entry.kind, "value": as_array(entry.value, f"state '{name}'")} for name, entry in state.items()}


def unpack(entries: dict, plain: bool) -> dict:
    """The arrays of a state by name, plain or numpy's, as copies that may be written to."""
    return {name: for_method(entry["value"].copy(), plain) for name, entry in entries.items()}
