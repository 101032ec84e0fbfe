"""Hyper-parameters: a dataclass, told to the harness with types, defaults and docs."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

KINDS = {bool: "bool", int: "integer", float: "float", str: "string"}


def parameter(default: Any, doc: str) -> Any:
    """A field of a configuration: its default and what it means (shown by `cilbench describe`)."""
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata={"doc": doc})
    return dataclasses.field(default=default, metadata={"doc": doc})


def describe(config: type) -> list[dict]:
    """The hyper-parameters of a configuration: key, type, default, doc, choices."""
    hints = typing.get_type_hints(config)
    values = config()
    return [_describe(config, field, hints[field.name], getattr(values, field.name)) for field in dataclasses.fields(config)]


def _describe(config: type, field: dataclasses.Field, hint: Any, default: Any) -> dict:
    choices = None
    if typing.get_origin(hint) is typing.Literal:
        choices = list(typing.get_args(hint))
        kind = "string"
    elif typing.get_origin(hint) is list and typing.get_args(hint)[0] in KINDS:
        kind = f"list of {KINDS[typing.get_args(hint)[0]]}"
    elif hint in KINDS:
        kind = KINDS[hint]
    else:
        raise TypeError(
            f"{config.__name__}.{field.name}: a hyper-parameter is a bool, int, float, str, list of one of these, or Literal of strings, not {hint}"
        )
    if hint is float:
        default = float(default)
    return {"key": field.name, "type": kind, "default": default, "doc": field.metadata.get("doc", ""), "choices": choices}


def build(config: type, values: dict) -> Any:
    """The configuration of these values."""
    kinds = {entry["key"]: entry["type"] for entry in describe(config)}
    return config(**{key: float(value) if kinds.get(key) == "float" else value for key, value in values.items()})
