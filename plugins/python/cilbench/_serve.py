"""Answers the harness's calls, one at a time, until it goes away."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
import traceback
from typing import Any, Type

from . import _wire, parameters
from .context import Context
from .method import Batch, Method, Plan, Setup, TaskInfo, Unsupported, UsageError
from .state import pack, unpack


class Diverged(Exception):
    """A loss term stopped being finite."""


def serve(method: Type[Method]) -> None:
    """Hands `method` to the harness that started this script. The last line of a plugin."""
    if not _wire.is_plugin():
        script = " ".join([os.path.basename(sys.executable or "python"), *sys.argv])
        print(f'This is a plugin of cilbench. Run it with:\n  cilbench run --plugin "{script}" --method {method.name}', file=sys.stderr)
        sys.exit(2)
    channel = _wire.Channel.of_process()
    _end_with_parent()
    hello = channel.receive()
    if hello is None:
        return
    hello = hello["hello"]
    shared = bool(hello.get("shared")) and channel.open_shared(hello["shared"])
    channel.send({"about": {"protocol": _wire.PROTOCOL, "version": _wire.VERSION, "shared": shared, "method": _about(method)}})
    server = _Server(method, channel)
    while (message := channel.receive()) is not None:
        channel.send(server.answer(message["call"]))


def _about(method: Type[Method]) -> dict:
    missing = [key for key in ("name", "version", "summary") if not isinstance(getattr(method, key, None), str)]
    if missing:
        raise TypeError(f"{method.__name__}: set the class attributes {', '.join(missing)} to strings")
    about = {key: getattr(method, key) for key in ("name", "version", "summary", "paper", "access", "trains")}
    return {**about, "parameters": parameters.describe(method.Config) if method.Config else []}


def _end_with_parent() -> None:
    """Ends this process when the harness dies, even in the middle of a call."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Server:
    def __init__(self, method: Type[Method], channel: _wire.Channel) -> None:
        self._class = method
        self._channel = channel
        self._method: Any = None

    def answer(self, call: Any) -> dict:
        (name, given), = call.items() if isinstance(call, dict) else ((call, {}),)
        try:
            handler = getattr(self, "_" + name.replace("-", "_"), None)
            if handler is None:
                raise Unsupported(f"this version of the Python package does not know the call '{name}'")
            return {"result": handler(**(given or {}))}
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            kinds = {UsageError: "usage", Unsupported: "unsupported", Diverged: "diverged"}
            kind = next((kind for type_, kind in kinds.items() if isinstance(error, type_)), "failed")
            text = str(error) if kind != "failed" else "".join(traceback.format_exception_only(type(error), error)).strip()
            return {"error": {"kind": kind, "text": text}}

    def _build(self, config: dict, setup: dict) -> None:
        built = parameters.build(self._class.Config, config) if self._class.Config else None
        self._method = self._class(built, Setup(**setup))

    def _check(self, classes: int) -> None:
        self._method.check(classes)

    def _plan(self, task: dict) -> dict:
        plan = self._method.plan(TaskInfo.of(task))
        if not isinstance(plan, Plan):
            raise TypeError(f"plan() returned {type(plan).__name__}; return cilbench.Plan(epochs, batch_size)")
        return {"epochs": plan.epochs, "batch_size": plan.batch_size, "view": plan.view}

    def _begin_task(self, task: dict, probing: bool) -> None:
        self._method.begin_task(TaskInfo.of(task), Context(self._channel, probing))

    def _observe(self, batch: dict, epoch: int, step: int, task: dict, probing: bool) -> list:
        losses = self._method.observe(Batch.of(batch, epoch, step), TaskInfo.of(task), Context(self._channel, probing))
        if not isinstance(losses, dict):
            raise TypeError(f"observe() returned {type(losses).__name__}; return a dict of loss terms by name")
        terms = [[name, float(value)] for name, value in losses.items()]
        for term, value in terms:
            if not math.isfinite(value):
                raise Diverged(f"the loss term '{term}' is {value} in task {task['index']}, epoch {epoch}, step {step}: lower the learning rate")
        return terms

    def _end_task(self, task: dict, probing: bool) -> None:
        self._method.end_task(TaskInfo.of(task), Context(self._channel, probing))

    def _predict(self, images: Any) -> Any:
        return _wire.as_array(self._method.predict(images), "predict()")

    def _cls_tokens(self, images: Any) -> Any:
        tokens = self._method.cls_tokens(images)
        return None if tokens is None else _wire.as_array(tokens, "cls_tokens()")

    def _state(self) -> dict:
        return pack(self._method.state())

    def _restore(self, state: dict, tasks: list, running: bool) -> None:
        self._method.restore(unpack(state), [TaskInfo.of(task) for task in tasks], running)
