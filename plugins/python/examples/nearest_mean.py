"""Nearest class mean on pixels: the smallest complete method in Python. Needs only numpy.

    cilbench run --plugin "python plugins/python/examples/nearest_mean.py" --method nearest-mean-python
"""

from dataclasses import dataclass

import cilbench
import numpy as np


@dataclass
class Config:
    batch_size: int = cilbench.parameter(64, "Images read at a time.")


class NearestMean(cilbench.Method):
    name = "nearest-mean-python"
    version = "1"
    summary = "nearest class mean on pixels, in Python"
    trains = "nothing"
    Config = Config

    def __init__(self, config, setup):
        if config.batch_size < 1:
            raise cilbench.UsageError(f"batch_size = {config.batch_size}: read at least one image at a time")
        self.config = config
        self.means = np.zeros((0, 3 * setup.image_size**2), np.float32)  # (classes, 3·height·width)

    def end_task(self, task, ctx):
        seen = max(task.classes) + 1
        sums, counts = np.zeros((seen, self.means.shape[1])), np.zeros((seen, 1))
        for batch in ctx.pass_("test", self.config.batch_size):
            np.add.at(sums, batch.labels, batch.images.reshape(len(batch.labels), -1))
            np.add.at(counts, batch.labels, 1)
        new = sums[len(self.means) :] / counts[len(self.means) :]
        self.means = np.concatenate([self.means, new.astype(np.float32)])

    def predict(self, images):
        pixels = images.reshape(len(images), -1)
        return 2 * pixels @ self.means.T - (self.means**2).sum(1)  # −‖x − m‖² without ‖x‖², equal for all classes

    def state(self):
        return {"means": cilbench.statistic(self.means)}

    def restore(self, state, tasks, running):
        self.means = state["means"]


if __name__ == "__main__":
    cilbench.serve(NearestMean)
