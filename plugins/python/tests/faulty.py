"""A method for the tests that breaks one rule, named on the command line. As "well" it breaks none. It needs no package."""

import os
import sys
import time

FAULT = sys.argv[1]
# Most faults happen in the only step of the second task: by then the first is learned and in a checkpoint.
if FAULT == "rubbish-first":
    print("Loading the model ...", flush=True)

import cilbench
from cilbench import _serve, _wire

if FAULT == "other-version":
    _wire.PROTOCOL = 99
if FAULT == "earlier-version":
    _wire.PROTOCOL = 1
# What a plugin of a later revision may send.
LATER = {"later-offer": {"licence": "MIT"}, "later-optional": {"?licence": "MIT"}}
if FAULT.startswith("later"):
    _wire.REVISION = 3
    _offer = _serve._offer
    _serve._offer = lambda method: {**_offer(method), **LATER.get(FAULT, {})}
    _plan = _serve._Server._plan
    more = {"later-plan": {"repeats": 2}, "later-optional": {"?repeats": 2}}.get(FAULT, {})
    _serve._Server._plan = lambda server, task: {"plan": {**_plan(server, task)["plan"], **more}}
if FAULT == "import-error":
    import a_module_that_does_not_exist  # noqa: F401
if FAULT == "silent":
    time.sleep(1000)


class Faulty(cilbench.Method):
    name = f"faulty-{FAULT}"
    version = "1"
    summary = f"breaks one rule: {FAULT}"
    access = "stream"
    arrays = "plain"

    def __init__(self, config, setup):
        print("standard output is taken over")  # must reach standard error
        os.write(1, b"also below Python\n")
        self.classes = 0
        self.weight = [0.0, 0.0, 0.0]
        if FAULT == "refuses":
            raise cilbench.UsageError("rank = 0: at least 1")

    def plan(self, task):
        if FAULT == "plan":
            return (1, 8)
        if FAULT == "parts":
            self.steps = 0
            return cilbench.Plan(epochs=1, batch_size=5, view="test", drop_last=True, steps=3, test_batch=3)
        return cilbench.Plan(epochs=10**6 if FAULT == "slow" else 1, batch_size=1000, view="test")

    def end_task(self, task, ctx):
        assert FAULT != "parts" or self.steps == 3, f"{self.steps} steps"

    def begin_task(self, task, ctx):
        self.classes = max(task.classes) + 1

    def observe(self, batch, task, ctx):
        loss = 1.0
        if FAULT == "parts":
            self.steps += 1
            assert len(batch.labels) == 5, f"a batch of {len(batch.labels)}"
        if FAULT == "slow":
            time.sleep(0.05)
        if task.index == 1:
            if FAULT == "hang":
                time.sleep(1000)
            if FAULT == "die" and not os.path.exists(sys.argv[2]):
                open(sys.argv[2], "w").close()
                print("the last words of a dying process", file=sys.stderr)
                os._exit(3)
            if FAULT == "killed":
                os.kill(os.getpid(), 9)
            if FAULT == "rubbish":
                os.write(_wire._stdout, b"epoch 1: loss 0.7\n")
            if FAULT == "raise":
                raise ValueError("the matrix is singular")
            if FAULT == "nan-loss":
                loss = float("nan")
            if FAULT == "memory":
                ctx.memorise([0])
            if FAULT == "swallow":
                try:
                    ctx.memorise([0])
                except Exception:
                    pass  # and goes on as if nothing had happened
            if FAULT == "huge-draw":
                ctx.draw("huge", [2**32, 2**32])
            if FAULT == "fork" and os.fork() == 0:
                time.sleep(1000)  # a worker that holds the pipes open
            if FAULT == "fork":
                os.kill(os.getpid(), 9)
            if FAULT == "losses":
                return 0.5
        self.weight = [w + step for w, step in zip(self.weight, ctx.draw("step", [3]))]
        return {"loss": loss}

    def predict(self, images):
        assert FAULT != "parts" or len(images) <= 3, f"{len(images)} images at once"
        scores = [sum(image.flat) / len(image.flat) * sum(self.weight) for image in images]
        logits = [[float(c) + score for c in range(self.classes)] for score in scores]
        second = self.classes > 2
        if second and FAULT == "nan-logits":
            logits[0][0] = float("nan")
        if second and FAULT == "wrong-logits":
            logits = [row[1:] for row in logits]
        if second and FAULT == "few-logits":
            logits = logits[1:]
        if second and FAULT == "flat-logits":
            logits = [logit for row in logits for logit in row]
        return logits

    def state(self):
        if FAULT == "unmarked":
            return {"weight": self.weight}
        if FAULT == "type":
            return {"weight": cilbench.trained([complex(w) for w in self.weight])}
        return {"classes": cilbench.buffer([self.classes]), "weight": cilbench.trained(self.weight)}

    def restore(self, state, tasks, running):
        self.classes = state["classes"][0]
        if FAULT != "forgets":
            self.weight = state["weight"].tolist()


cilbench.serve(Faulty)
