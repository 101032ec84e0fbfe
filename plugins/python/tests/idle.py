"""A method that learns nothing. A step of it costs what handing a batch to a process costs. It needs no package.

    cilbench bench step --method idle --plugin "python3 plugins/python/tests/idle.py"
"""

import cilbench


class Idle(cilbench.Method):
    name = "idle"
    version = "1"
    summary = "learns nothing: for measuring the cost of a call"
    arrays = "plain"

    def __init__(self, config, setup):
        self.classes = 0

    def plan(self, task):
        return cilbench.Plan(epochs=1, batch_size=32)

    def begin_task(self, task, ctx):
        self.classes = max(task.classes) + 1

    def observe(self, batch, task, ctx):
        return {"nothing": 0.0}

    def predict(self, images):
        return [[0.0] * self.classes for _ in images]

    def state(self):
        return {"classes": cilbench.buffer([self.classes])}

    def restore(self, state, tasks, running):
        self.classes = state["classes"][0]


cilbench.serve(Idle)
