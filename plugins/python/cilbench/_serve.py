"""Answers the harness's calls, one at a time, until the harness ends."""

from __future__ import annotations

import inspect
import json
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from typing import Any, Type

from . import _arrays, _wire, parameters
from .context import Context, HostError
from .method import Batch, Method, Plan, Scenario, Setup, TaskInfo, Unsupported, UsageError
from .state import pack, unpack


BACKBONE = [
    "entry",
    "name",
    "weights",
    "weights_hash",
    "dim",
    "blocks",
    "heads",
    "patch",
    "image_size",
    "mean",
    "std",
]
"""The facts that are sent about a backbone."""


class Diverged(Exception):
    """A loss term stopped being finite."""


def serve(method: Type[Method]) -> None:
    """Hands `method` to the harness that started this script. It is the last line of a plugin."""
    if not _wire.is_plugin():
        script = " ".join([os.path.basename(sys.executable or "python"), *sys.argv])
        print(f'This is a plugin of cilbench. Run it with:\n  cilbench run --plugin "{script}" --method {method.name}', file=sys.stderr)
        sys.exit(2)
    if multiprocessing.parent_process() is not None:
        return  # A worker that the method started imports the script again.
    channel = _wire.Channel.of_process()
    _end_with_parent()
    shared = channel.open_shared(os.environ.get("CILBENCH_SHARED", ""))
    channel.send({"offer": _offer(method), "shared": shared})
    server = _Server(method, channel)
    while (frame := channel.receive()) is not None:
        channel.send({"answer": server.answer(**_wire.known(frame["call"], ["call", "probing"], "a call"))})


def _offer(method: Type[Method]) -> dict:
    missing = [key for key in ("name", "version", "summary") if not isinstance(getattr(method, key, None), str)]
    if missing:
        raise TypeError(f"{method.__name__}: set the class attributes {', '.join(missing)} to strings")
    if method.arrays not in ("numpy", "plain"):
        raise TypeError(f"{method.__name__}.arrays = {method.arrays!r}: one of numpy, plain")
    keys = ("name", "version", "summary", "paper", "access", "trains", "presets", "trial_settings")
    about = {key: getattr(method, key) for key in keys}
    fields = parameters.describe(method.Config) if method.Config else []
    script = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    return {
        "protocol": _wire.PROTOCOL,
        "revision": _wire.REVISION,
        "name": script,
        "version": method.version,
        "methods": [{**about, "fields": json.dumps(fields, allow_nan=False)}],
    }


def _end_with_parent() -> None:
    """Ends this process when the harness dies, even in the middle of a call."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        if os.getpgrp() == os.getpid():  # The harness starts it as a group: what it started ends with it.
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Server:
    """One instance of a method, built by the first call."""

    def __init__(self, method: Type[Method], channel: _wire.Channel) -> None:
        self._class = method
        self._channel = channel
        self._method: Any = None
        self._probing = False
        self._plain = method.arrays == "plain"

    def answer(self, call: Any, probing: bool) -> Any:
        """The answer to a call: what the method returned, or how it failed."""
        ((name, given),) = call.items() if isinstance(call, dict) else ((call, {}),)
        self._probing = probing
        try:
            handler = getattr(self, "_" + name.replace("-", "_"), None)
            if handler is None:
                raise Unsupported(f"this version of the Python package does not know the call '{name}'")
            return handler(**_wire.known(given, inspect.signature(handler).parameters, f"the call '{name}'"))
        except Exception as error:
            if not isinstance(error, (UsageError, Unsupported, Diverged, HostError, _wire.UnknownKey)):
                traceback.print_exc(file=sys.stderr)
            return {"failed": _failure(error)}

    def _context(self) -> Context:
        return Context(self._channel, self._probing, self._plain)

    def _images(self, images: Any) -> Any:
        return _arrays.for_method(images, self._plain)

    def _build(self, method: str, config: str, backbone: dict, device: str, dtype: str) -> str:
        _wire.known(backbone, BACKBONE, "the backbone")
        if not self._plain:
            _arrays.require_numpy()
        built = parameters.build(self._class.Config, json.loads(config)) if self._class.Config else None
        self._method = self._class(built, Setup(device, dtype, backbone["image_size"], backbone["weights"], backbone))
        return "done"

    def _check(self, scenario: dict) -> str:
        self._method.check(Scenario.of(scenario))
        return "done"

    def _plan(self, task: dict) -> dict:
        plan = self._method.plan(TaskInfo.of(task))
        if not isinstance(plan, Plan):
            raise TypeError(f"plan() returned {type(plan).__name__}; return cilbench.Plan(epochs, batch_size)")
        counts = {"epochs": int(plan.epochs), "batch_size": int(plan.batch_size)}
        optional = {key: None if (n := getattr(plan, key)) is None else int(n) for key in ("steps", "test_batch")}
        return {"plan": {**counts, "view": plan.view, "drop_last": bool(plan.drop_last), **optional}}

    def _begin_task(self, task: dict) -> str:
        self._method.begin_task(TaskInfo.of(task), self._context())
        return "done"

    def _observe(self, batch: dict, epoch: int, step: int, task: dict) -> dict:
        losses = self._method.observe(Batch.of(batch, self._plain, epoch, step), TaskInfo.of(task), self._context())
        if not isinstance(losses, dict):
            raise TypeError(f"observe() returned {type(losses).__name__}; return a dict of loss terms by name")
        terms = [[str(name), float(value)] for name, value in losses.items()]
        for term, value in terms:
            if not math.isfinite(value):
                place = f"task {task['index'] + 1}, epoch {epoch + 1}, step {step + 1}"
                raise Diverged(f"the loss term '{term}' is {value} in {place}: lower the learning rate")
        return {"losses": terms}

    def _end_task(self, task: dict) -> str:
        self._method.end_task(TaskInfo.of(task), self._context())
        return "done"

    def _predict(self, images: Any) -> dict:
        return {"logits": _arrays.as_array(self._method.predict(self._images(images)), "predict()")}

    def _cls_tokens(self, images: Any) -> dict:
        tokens = self._method.cls_tokens(self._images(images))
        return {"cls-tokens": None if tokens is None else _arrays.as_array(tokens, "cls_tokens()")}

    def _state(self) -> dict:
        return {"state": {"entries": pack(self._method.state())}}

    def _restore(self, state: dict, tasks: list, running: bool) -> str:
        self._method.restore(unpack(state["entries"], self._plain), [TaskInfo.of(task) for task in tasks], running)
        return "done"

    def _export(self) -> Any:
        raise Unsupported("a method in Python cannot be exported as a backbone with a linear head; save its model in its script")


def _failure(error: Exception) -> dict:
    if isinstance(error, HostError):
        return {"class": error.kind, "text": str(error)}
    kinds = {UsageError: "usage", Unsupported: "unsupported", Diverged: "diverged", _wire.UnknownKey: "unsupported"}
    for type_, kind in kinds.items():
        if isinstance(error, type_):
            return {"class": kind, "text": str(error)}
    text = "".join(traceback.format_exception_only(type(error), error)).strip()
    here = os.path.dirname(os.path.abspath(__file__))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not os.path.abspath(f.filename).startswith(here)]
    # The line of the method's author, not one in a library that the method called.
    own = [f for f in frames if "site-packages" not in f.filename and "dist-packages" not in f.filename]
    frames = own or frames
    where = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    return {"class": "failed", "text": text + where}
