"""The base class of methods, and the data that a method is given."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Optional

from . import _wire
from ._arrays import for_method, integers

if TYPE_CHECKING:
    from .context import Context


class UsageError(Exception):
    """A hyper-parameter is out of range. The text names the key and what to set it to."""


class Unsupported(Exception):
    """The method cannot do what is asked on this backbone or device."""


@dataclasses.dataclass(frozen=True)
class TaskInfo:
    """What a method is told about a task."""

    index: int
    """The number of the task, from 0."""
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
    """What is known about a scenario before its first task."""

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
    """Images and labels. In a training step also the epoch and the step."""

    images: Any
    """(batch, 3, height, width), f32 in [0, 1]."""
    labels: Any
    """(batch), i64: classes as the model sees them."""
    positions: Any
    """(batch), i64: positions in the task's training set, or the exemplars' ids in a read of the memory."""
    epoch: int = 0
    step: int = 0

    @classmethod
    def of(cls, message: dict, plain: bool, epoch: int = 0, step: int = 0) -> "Batch":
        """From a message, with arrays that are plain or numpy's."""
        _wire.known(message, ["images", "labels", "positions"], "a batch")
        numbers = (message["images"], *(integers(message[key]) for key in ("labels", "positions")))
        return cls(*(for_method(array, plain) for array in numbers), epoch, step)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How the training images of a task are served."""

    epochs: int
    """Passes over them. 0 if the method only uses passes of its own in `end_task`."""
    batch_size: int
    view: str = "train"
    """Their transform: "train" (random crop and flip) or "test"."""
    drop_last: bool = False
    """Whether a smaller last batch is left out. An epoch of one smaller batch keeps it."""
    steps: Optional[int] = None
    """The number of steps, if training is counted in steps. Epochs repeat until it is reached."""
    test_batch: Optional[int] = None
    """Images per call of `predict` while cilbench scores, if its own number does not suit."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """What the method is built on."""

    device: str
    """Where to compute: cpu, cuda, cuda:<n>."""
    dtype: str
    """The floating-point type of the computation: f32 or f64."""
    image_size: int
    """The side of the images, in pixels."""
    weights: Optional[str]
    """The backbone's weights: a safetensors file with timm's tensor names, or None. Read it in `__init__`:
    it may be gone later."""
    backbone: dict[str, Any]
    """What is known about the backbone: name, dim, blocks, heads, patch, mean, std and more."""


class Method:
    """A class-incremental learner. The harness calls, and the method answers.

    The calls of a task are `plan`, `begin_task`, `observe` for each batch of each epoch, and `end_task`.
    Then comes `predict` on the test images of all classes seen so far.
    """

    name: str
    """Its name on the command line."""
    version: str
    """The version of its arithmetic: raise it whenever results change by more than rounding."""
    summary: str
    """A summary in one line."""
    paper: str = ""
    """The paper, as BibTeX."""
    access: str = "stream"
    """Which past images it may see: "stream" (none), "memory" (those it stored) or "all"."""
    trains: str = ""
    """A description of what it trains."""
    presets: str = ""
    """TOML text with a table of hyper-parameters for each data set whose defaults differ."""
    trial_settings: str = ""
    """TOML text: the hyper-parameters of the conformance suite's trials, on top of the defaults."""
    arrays: str = "numpy"
    """The arrays it is handed: "numpy", or "plain" (`cilbench.Array`, which needs no package)."""
    Config: Optional[type] = None
    """The hyper-parameters: a dataclass whose fields are `parameter(default, doc)`."""

    def __init__(self, config: Any, setup: Setup) -> None:
        """Builds the method with nothing learned. Check every hyper-parameter here, and raise
        `UsageError` for a bad one."""
        self.config = config
        self.setup = setup

    def check(self, scenario: Scenario) -> None:
        """Raises `UsageError` if the hyper-parameters do not suit a scenario."""

    def plan(self, task: TaskInfo) -> Plan:
        """How the training images of this task are served."""
        return Plan(epochs=0, batch_size=64, view="test")

    def begin_task(self, task: TaskInfo, ctx: "Context") -> None:
        """Called when a task begins: add what its new classes need."""

    def observe(self, batch: Batch, task: TaskInfo, ctx: "Context") -> dict[str, float]:
        """Does one optimisation step. Returns the loss terms by name, as they were before the update."""
        return {}

    def end_task(self, task: TaskInfo, ctx: "Context") -> None:
        """Called after the last epoch, for statistics and classifier alignment."""

    def predict(self, images: Any) -> Any:
        """Logits (batch, classes seen so far) of images (batch, 3, height, width), f32 in [0, 1].

        Returns an array, a PyTorch tensor, or nested lists.
        """
        raise NotImplementedError(f"{type(self).__name__}.predict")

    def cls_tokens(self, images: Any) -> Any:
        """The normalised CLS token after every block of the predicting model: (batch, blocks, dim).

        None if the model has none.
        """
        return None

    def state(self) -> dict[str, Any]:
        """Everything that the method carries, by name.

        Each value is `trained(array)`, `statistic(array)`, `optimiser(array)` or `buffer(array)`.
        """
        raise NotImplementedError(f"{type(self).__name__}.state")

    def restore(self, state: dict[str, Any], tasks: list[TaskInfo], running: bool) -> None:
        """Takes over a state into a freshly built method.

        `tasks` are those begun so far. `running` says that the last of them is still in training.
        """
        raise NotImplementedError(f"{type(self).__name__}.restore")
