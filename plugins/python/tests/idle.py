"""A method that learns nothing: what a step of it costs is what crossing to a process costs.

    cilbench bench step --method idle --plugin "python3 plugins/python/tests/idle.py"
"""

import cilbench
import numpy as np


class Idle(cilbench.Method):
    name = "idle"
    version = "1"
    summary = "learns nothing: for measuring the cost of a call"

    def __init__(self, config, setup):
        self.classes = np.zeros(1, np.int64)

    def plan(self, task):
        return cilbench.Plan(epochs=1, batch_size=32)

    def begin_task(self, task, ctx):
        self.classes[0] = max(task.classes) + 1

    def observe(self, batch, task, ctx):
        return {"nothing": 0.0}

    def predict(self, images):
        return np.zeros((len(images), int(self.classes[0])), np.float32)

    def state(self):
        return {"classes": cilbench.buffer(self.classes)}

    def restore(self, state, tasks, running):
        self.classes = state["classes"]


cilbench.serve(Idle)
