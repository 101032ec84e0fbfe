"""What a method is: the base class, and the plain data it is given."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from . import _wire

if TYPE_CHECKING:
    from .context import Context


class UsageError(Exception):
    """A hyper-parameter is out of range: name the key, and what to set it to."""


class Unsupported(Exception):
    """The method cannot do what is asked of it on this backbone or device."""


@dataclasses.dataclass(frozen=True)
class TaskInfo:
    """What a method is told of a task."""

    index: int
    """The task, from 0."""
    tasks: int
    """The number of tasks of the scenario."""
    classes: list[int]
    """Its classes as the model sees them, numbered in the order of their first appearance."""
    first_class: int
    """The number of classes of the tasks before; 0 if every task has all classes."""
    class_names: list[str]
    train_images: int
    """The number of its training images."""
    domain: Optional[str] = None

    @classmethod
    def of(cls, plain: dict) -> "TaskInfo":
        """From a message."""
        return cls(**_wire.known(plain, [field.name for field in dataclasses.fields(cls)], "a task"))


@dataclasses.dataclass(frozen=True)
class Scenario:
    """What is known of a scenario before its first task."""

    classes: int
    """The number of classes of all tasks."""
    tasks: int
    """The number of tasks."""
    domain_incremental: bool
    """Whether each task is a domain with all classes."""

    @classmethod
    def of(cls, plain: dict) -> "Scenario":
        """From a message."""
        return cls(**_wire.known(plain, [field.name for field in dataclasses.fields(cls)], "a scenario"))


@dataclasses.dataclass(frozen=True)
class Batch:
    """Images and labels; of a training step, also where in the run it is."""

    images: np.ndarray
    """(batch, 3, height, width), f32 in [0, 1]."""
    labels: np.ndarray
    """(batch), i64: classes as the model sees them."""
    positions: np.ndarray
    """(batch), i64: positions in the task's training set; in a read of the memory, the exemplars' ids."""
    epoch: int = 0
    step: int = 0

    @classmethod
    def of(cls, plain: dict, epoch: int = 0, step: int = 0) -> "Batch":
        """From a message."""
        _wire.known(plain, ["images", "labels", "positions"], "a batch")
        labels, positions = (np.asarray(plain[key], np.int64) for key in ("labels", "positions"))
        return cls(plain["images"], labels, positions, epoch, step)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How the training images of a task are to be served."""

    epochs: int
    """Passes over them; 0 if the method only uses passes of its own in `end_task`."""
    batch_size: int
    view: str = "train"
    """Their transform: "train" (random crop and flip) or "test"."""
    drop_last: bool = False
    """Whether a last batch that is smaller is left out. An epoch of one smaller batch keeps it."""
    steps: Optional[int] = None
    """Steps after which training ends, if it is counted in steps. Epochs then repeat until there are as many steps."""
    test_batch: Optional[int] = None
    """Images per call of `predict` while cilbench scores, if its own number does not suit."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """What the method is built on."""

    device: str
    """Where to compute: cpu, cuda, cuda:<n>."""
    dtype: str
    """In which floating-point type: f32 or f64."""
    image_size: int
    """The side of the images, in pixels."""
    weights: Optional[str]
    """The backbone's weights, a safetensors file with timm's tensor names: read it now, it may be gone later. None if it has no file."""
    backbone: dict[str, Any]
    """What is known of the backbone: name, dim, blocks, heads, patch, mean, std, …."""


class Method:
    """A class-incremental learner. The harness calls, the method answers.

    For every task: `plan`, `begin_task`, `observe` for each batch of each epoch, `end_task`; then `predict` on the test images of all classes
    seen so far.
    """

    name: str
    """Its name on the command line."""
    version: str
    """The version of its arithmetic: raise it whenever results change by more than rounding."""
    summary: str
    """One line."""
    paper: str = ""
    """The paper, as BibTeX."""
    access: str = "stream"
    """What it may see of past images: "stream" (none), "memory" (those it stored with the harness) or "all"."""
    trains: str = ""
    """What it trains, in words."""
    presets: str = ""
    """TOML text with one table of hyper-parameters for each data set that needs others than the defaults."""
    trial_settings: str = ""
    """TOML text: the hyper-parameters with which the conformance suite tries it, on top of its defaults."""
    Config: Optional[type] = None
    """Its hyper-parameters: a dataclass whose fields are `parameter(default, doc)`."""

    def __init__(self, config: Any, setup: Setup) -> None:
        """Builds it, with nothing learned. Check every hyper-parameter here and raise `UsageError`."""
        self.config = config
        self.setup = setup

    def check(self, scenario: Scenario) -> None:
        """Whether its hyper-parameters suit a scenario; raise `UsageError` if not."""

    def plan(self, task: TaskInfo) -> Plan:
        """How the training images of this task are to be served."""
        return Plan(epochs=0, batch_size=64, view="test")

    def begin_task(self, task: TaskInfo, ctx: "Context") -> None:
        """A new task begins: make room for its classes."""

    def observe(self, batch: Batch, task: TaskInfo, ctx: "Context") -> dict[str, float]:
        """One optimisation step. Returns the loss terms by name, as they were before the update."""
        return {}

    def end_task(self, task: TaskInfo, ctx: "Context") -> None:
        """The last epoch is over: statistics, alignment."""

    def predict(self, images: np.ndarray) -> Any:
        """Logits (batch, classes seen so far) for images (batch, 3, height, width), f32 in [0, 1]: a numpy array or a PyTorch tensor."""
        raise NotImplementedError(f"{type(self).__name__}.predict")

    def cls_tokens(self, images: np.ndarray) -> Any:
        """The normalised CLS token after every block, (batch, blocks, dim), of the model as it predicts; None if there are none."""
        return None

    def state(self) -> dict[str, Any]:
        """Everything it carries: names to `trained(array)`, `statistic(array)`, `optimiser(array)` or `buffer(array)`."""
        raise NotImplementedError(f"{type(self).__name__}.state")

    def restore(self, state: dict[str, np.ndarray], tasks: list[TaskInfo], running: bool) -> None:
        """Takes over a state; `self` is freshly built. `tasks` are those begun so far; `running`: the last of them is still in training."""
        raise NotImplementedError(f"{type(self).__name__}.restore")
