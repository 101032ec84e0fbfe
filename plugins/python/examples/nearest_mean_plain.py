"""Nearest class mean on pixels, in Python alone: it needs no package. Slow; `nearest_mean.py` is the same with numpy.

    cilbench run --plugin "python plugins/python/examples/nearest_mean_plain.py" --method nearest-mean-plain
"""

from dataclasses import dataclass
from operator import add, mul

import cilbench


@dataclass
class Config:
    batch_size: int = cilbench.parameter(64, "Images read at a time.")


class NearestMean(cilbench.Method):
    name = "nearest-mean-plain"
    version = "1"
    summary = "nearest class mean on pixels, in Python without packages"
    trains = "nothing"
    arrays = "plain"  # images and states are cilbench.Array instead of numpy's
    Config = Config

    def __init__(self, config, setup):
        if config.batch_size < 1:
            raise cilbench.UsageError(f"batch_size = {config.batch_size}: read at least one image at a time")
        self.config = config
        self.means = []  # (classes, 3·height·width)

    def end_task(self, task, ctx):
        sums, counts = {}, {}
        for batch in ctx.pass_("test", self.config.batch_size):
            for image, label in zip(batch.images, batch.labels):
                pixels = image.flat.tolist()
                sums[label] = list(map(add, sums[label], pixels)) if label in sums else pixels
                counts[label] = counts.get(label, 0) + 1
        for label in range(len(self.means), max(task.classes) + 1):
            self.means.append([total / counts[label] for total in sums[label]])

    def predict(self, images):
        offsets = [sum(map(mul, mean, mean)) for mean in self.means]
        pixels = [image.flat.tolist() for image in images]
        # −‖x − m‖² without ‖x‖², which is equal for all classes.
        return [[2 * sum(map(mul, x, mean)) - offset for mean, offset in zip(self.means, offsets)] for x in pixels]

    def state(self):
        return {"means": cilbench.statistic(self.means)}

    def restore(self, state, tasks, running):
        self.means = state["means"].tolist()


if __name__ == "__main__":
    cilbench.serve(NearestMean)
