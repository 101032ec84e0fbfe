"""Softmax regression on pixels by SGD: the same as in the Rust test that runs it, but for rounding. It needs no package."""

import math
from dataclasses import dataclass
from operator import mul

import cilbench


@dataclass
class Config:
    learning_rate: float = cilbench.parameter(0.05, "Step size.")


class PixelSoftmax(cilbench.Method):
    name = "pixel-softmax-python"
    version = "1"
    summary = "softmax regression on pixels"
    arrays = "plain"
    Config = Config

    def __init__(self, config, setup):
        self.config = config
        self.pixels = 3 * setup.image_size**2
        self.weight = []  # (classes, pixels)

    def plan(self, task):
        return cilbench.Plan(epochs=2, batch_size=8, view="train")

    def begin_task(self, task, ctx):
        shape = [len(task.classes), self.pixels]
        self.weight += ctx.draw(f"weight.{task.index}", shape, cilbench.Uniform(-0.01, 0.01)).tolist()

    def logits(self, images):
        return [[sum(map(mul, image.flat, row)) for row in self.weight] for image in images]

    def observe(self, batch, task, ctx):
        count, loss = len(batch.images), 0.0
        gradient = [[0.0] * self.pixels for _ in self.weight]
        for image, logits, label in zip(batch.images, self.logits(batch.images), batch.labels):
            largest = max(logits)
            exponentials = [math.exp(logit - largest) for logit in logits]
            p = [e / sum(exponentials) for e in exponentials]
            loss -= math.log(p[label]) / count
            p[label] -= 1.0
            pixels = image.flat.tolist()
            gradient = [[g + share / count * x for g, x in zip(row, pixels)] for row, share in zip(gradient, p)]
        ctx.probe("gradient", gradient)
        rate = self.config.learning_rate
        self.weight = [[w - rate * g for w, g in zip(*rows)] for rows in zip(self.weight, gradient)]
        return {"ce": loss}

    def end_task(self, task, ctx):
        self.order = ctx.permutation("order", 5).tolist()
        assert sorted(self.order) == list(range(5)), self.order
        assert ctx.given("order") is None
        assert sum(len(batch.labels) for batch in ctx.pass_("test", 7)) == task.train_images

    def predict(self, images):
        return self.logits(images)

    def state(self):
        return {"weight": cilbench.trained(self.weight)}

    def restore(self, state, tasks, running):
        self.weight = state["weight"].tolist()


cilbench.serve(PixelSoftmax)
