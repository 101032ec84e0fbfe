"""Class-incremental learning methods in Python, scored by cilbench.

A method subclasses `Method` and ends its script with `cilbench.serve(MyMethod)`; the harness starts the script:

    cilbench run --plugin "python my_method.py" --method my-method
"""

from . import _wire
from ._arrays import Array
from .context import Context, Exemplar, HostError, Uniform
from .method import Batch, Method, Plan, Scenario, Setup, TaskInfo, Unsupported, UsageError
from .parameters import parameter
from .state import buffer, optimiser, statistic, trained
from ._serve import serve

# From here on, standard output belongs to the protocol. `print` writes to standard error, also in
# libraries that are imported later.
_wire.take_over_stdout()

__all__ = [
    "Array",
    "Batch",
    "Context",
    "Exemplar",
    "HostError",
    "Method",
    "Plan",
    "Scenario",
    "Setup",
    "TaskInfo",
    "Uniform",
    "Unsupported",
    "UsageError",
    "buffer",
    "optimiser",
    "parameter",
    "serve",
    "statistic",
    "trained",
]
