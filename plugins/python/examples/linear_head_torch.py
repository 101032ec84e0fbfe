"""A linear head, trained by SGD with PyTorch on frozen random convolutional features.

    cilbench run --plugin "python plugins/python/examples/linear_head_torch.py" --method linear-head-torch
"""

from dataclasses import dataclass

import cilbench
import torch
import torch.nn.functional as F


@dataclass
class Config:
    epochs: int = cilbench.parameter(5, "Passes over a task's training images.")
    batch_size: int = cilbench.parameter(32, "Images per step.")
    learning_rate: float = cilbench.parameter(2.0, "Step size of SGD with momentum 0.9.")
    features: int = cilbench.parameter(256, "Random filters of 7×7 pixels, frozen.")


class LinearHead(cilbench.Method):
    name = "linear-head-torch"
    version = "1"
    summary = "a linear head on frozen random features, in PyTorch"
    trains = "the weights of the task's own classes"
    Config = Config

    def __init__(self, config, setup):
        for key in ("epochs", "batch_size", "features"):
            if getattr(config, key) < 1:
                raise cilbench.UsageError(f"{key} = {getattr(config, key)}: at least 1")
        self.config, self.device = config, setup.device
        self.filters = torch.empty(0)
        self.weight = torch.zeros(0, 4 * config.features, device=self.device)  # (classes, features)
        self.momentum = torch.zeros_like(self.weight)

    def plan(self, task):
        return cilbench.Plan(self.config.epochs, self.config.batch_size, view="train")

    def begin_task(self, task, ctx):
        if task.index == 0:
            # Every random number comes from the harness. The same seed gives the same bits, and another
            # implementation gets the same numbers.
            self.filters = torch.from_numpy(ctx.draw("filters", [self.config.features, 3, 7, 7])).to(self.device)
        grown = torch.zeros(max(task.classes) + 1, self.weight.shape[1], device=self.device)
        grown[: len(self.weight)] = self.weight
        self.weight, self.momentum = grown, torch.zeros_like(grown)

    def features(self, images):
        x = torch.from_numpy(images).to(self.device)
        x = F.conv2d(x - x.mean((1, 2, 3), keepdim=True), self.filters, stride=3)
        x = F.adaptive_avg_pool2d(x.relu(), 2).flatten(1)
        return F.normalize(x - x.mean(1, keepdim=True))  # (batch, 4·features)

    def observe(self, batch, task, ctx):
        own = torch.tensor(task.classes, device=self.device)  # the loss sees this task's classes only
        weight = self.weight[own].requires_grad_()
        targets = torch.from_numpy(batch.labels).to(self.device) - task.first_class
        loss = F.cross_entropy(self.features(batch.images) @ weight.T, targets)
        (gradient,) = torch.autograd.grad(loss, weight)
        self.momentum[own] = 0.9 * self.momentum[own] + gradient
        self.weight[own] -= self.config.learning_rate * self.momentum[own]
        return {"ce": loss.item()}

    @torch.no_grad()
    def predict(self, images):
        return self.features(images) @ self.weight.T

    def state(self):
        return {
            "filters": cilbench.buffer(self.filters),
            "head.weight": cilbench.trained(self.weight),
            "momentum": cilbench.optimiser(self.momentum),
        }

    def restore(self, state, tasks, running):
        self.filters = torch.from_numpy(state["filters"]).to(self.device)
        self.weight = torch.from_numpy(state["head.weight"]).to(self.device)
        self.momentum = torch.from_numpy(state["momentum"]).to(self.device)


if __name__ == "__main__":
    cilbench.serve(LinearHead)
