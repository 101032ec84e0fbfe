"""Softmax regression on pixels by SGD: the same as in the Rust test that runs it, number for number."""

from dataclasses import dataclass

import cilbench
import numpy as np


@dataclass
class Config:
    learning_rate: float = cilbench.parameter(0.05, "Step size.")


class PixelSoftmax(cilbench.Method):
    name = "pixel-softmax-python"
    version = "1"
    summary = "softmax regression on pixels"
    Config = Config

    def __init__(self, config, setup):
        self.config = config
        self.weight = np.zeros((0, 3 * setup.image_size**2), np.float32)

    def plan(self, task):
        return cilbench.Plan(epochs=2, batch_size=8, view="train")

    def begin_task(self, task, ctx):
        new = ctx.draw(f"weight.{task.index}", [len(task.classes), self.weight.shape[1]], cilbench.Uniform(-0.01, 0.01))
        self.weight = np.concatenate([self.weight, new])

    def observe(self, batch, task, ctx):
        x = batch.images.reshape(len(batch.images), -1)
        logits = x @ self.weight.T
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        rows = np.arange(len(x))
        loss = -np.log(p[rows, batch.labels]).mean()
        p[rows, batch.labels] -= 1
        gradient = p.T @ x / len(x)
        ctx.probe("gradient", gradient)
        self.weight -= np.float32(self.config.learning_rate) * gradient
        return {"ce": loss}

    def end_task(self, task, ctx):
        self.order = ctx.permutation("order", 5)
        assert sorted(self.order) == list(range(5)), self.order
        assert ctx.given("order") is None
        assert sum(len(batch.labels) for batch in ctx.pass_("test", 7)) == task.train_images

    def predict(self, images):
        return images.reshape(len(images), -1) @ self.weight.T

    def state(self):
        return {"weight": cilbench.trained(self.weight)}

    def restore(self, state, tasks, running):
        self.weight = state["weight"]


cilbench.serve(PixelSoftmax)
