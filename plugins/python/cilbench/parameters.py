"""Hyper-parameters: a dataclass that is described to the harness. Values from there are checked against its types."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, Optional

from .method import UsageError

SIMPLE = (bool, int, float, str)


def parameter(default: Any, doc: str) -> Any:
    """A field of a configuration: its default and what it means (shown by `cilbench describe`)."""
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata={"doc": doc})
    return dataclasses.field(default=default, metadata={"doc": doc})


def describe(config: type) -> list[dict]:
    """The hyper-parameters of a configuration: key, default, doc."""
    values, hints = config(), _hints(config)
    return [_describe(field, hints[field.name], getattr(values, field.name)) for field in dataclasses.fields(config)]


def build(config: type, values: dict) -> Any:
    """The configuration of these values. Raises `UsageError` for a value that does not fit its field."""
    hints = _hints(config)
    return config(**{key: _checked(key, value, hints[key]) for key, value in values.items()})


def _hints(config: type) -> dict:
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        if not (hint in SIMPLE or _element(hint) in SIMPLE or _choices(hint)):
            raise TypeError(
                f"{config.__name__}.{field.name}: a hyper-parameter is a bool, int, float, str, list of one of these, or Literal of strings, not {hint}"
            )
    return hints


def _choices(hint: Any) -> Optional[list]:
    return list(typing.get_args(hint)) if typing.get_origin(hint) is typing.Literal else None


def _element(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is list else None


def _describe(field: dataclasses.Field, hint: Any, default: Any) -> dict:
    doc, choices = field.metadata.get("doc", ""), _choices(hint)
    if choices:
        doc = f"{doc} One of: {', '.join(choices)}.".strip()
    return {"key": field.name, "default": _checked(field.name, default, hint), "doc": doc}


def _checked(key: str, value: Any, hint: Any) -> Any:
    choices, element = _choices(hint), _element(hint)
    if choices:
        if value not in choices:
            raise UsageError(f"{key} = {value!r}: one of {', '.join(choices)}")
        return value
    if element:
        return [_checked(f"{key}[{i}]", v, element) for i, v in enumerate(value)]
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise UsageError(f"{key} = {value!r}: expected {hint.__name__}")
    return value
