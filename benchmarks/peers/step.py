"""A training step of SR²-LoRA in PyTorch, against `cilbench bench step`: equal shapes, threads and data type, by turns.

    python3 benchmarks/peers/step.py --size tiny --batch-size 32 --task 2 --rounds 3

Two scripts of our own on the other side. `authors`: what the authors' code does: every step builds ΣB_sA_s of all pairs so far as dense matrices, runs
the network with and without the running pair, both with autograd at hand. `tuned`: finished pairs folded, the running pair low-rank, the previous model
under no_grad, scaled_dot_product_attention, torch.compile. Each side runs in a process of its own and reports images a second and its peak memory.
Needs torch and a built target/release/cilbench.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--size", choices=["tiny", "small", "base"], default="tiny")
parser.add_argument("--image-size", type=int, default=224)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--task", type=int, default=2)
parser.add_argument("--steps", type=int, default=5)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rank", type=int, default=10)
parser.add_argument("--side", choices=["authors", "tuned"])
parser.add_argument("--cilbench", default=str(Path(__file__).parents[2] / "target/release/cilbench"))
args = parser.parse_args()


def torch_side(way):
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    dim, heads = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}[args.size]
    rank, tuned = args.rank, way == "tuned"

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
            pair = lambda: (nn.Parameter(torch.randn(rank, dim) * 0.05), nn.Parameter(torch.zeros(dim, rank)))
            # Finished pairs of earlier tasks, then the running one; for k and v.
            self.pairs = nn.ModuleList(nn.ParameterList([*pair(), *pair()]) for _ in range(args.task))

        def forward(self, x, running):
            b, n, _ = x.shape
            qkv = self.qkv(x)
            q, k, v = qkv.chunk(3, dim=-1)
            if tuned:
                if running:
                    ak, bk, av, bv = self.pairs[-1]
                    k, v = k + F.linear(F.linear(x, ak), bk), v + F.linear(F.linear(x, av), bv)
            else:
                used = list(self.pairs) if running else list(self.pairs)[:-1]
                if used:
                    k = k + F.linear(x, torch.stack([p[1] @ p[0] for p in used]).sum(0))
                    v = v + F.linear(x, torch.stack([p[3] @ p[2] for p in used]).sum(0))
            q, k, v = (t.reshape(b, n, heads, -1).transpose(1, 2) for t in (q, k, v))
            if tuned:
                y = F.scaled_dot_product_attention(q, k, v)
            else:
                y = (q @ k.transpose(-2, -1) * (dim // heads) ** -0.5).softmax(-1) @ v
            return self.proj(y.transpose(1, 2).reshape(b, n, dim))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
            self.attn, self.fc1, self.fc2 = Attention(), nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

        def forward(self, x, running):
            x = x + self.attn(self.norm1(x), running)
            return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))

    class ViT(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch = nn.Conv2d(3, dim, 16, 16)
            self.cls = nn.Parameter(torch.zeros(1, 1, dim))
            self.pos = nn.Parameter(torch.randn(1, (args.image_size // 16) ** 2 + 1, dim) * 0.02)
            self.blocks, self.norm = nn.ModuleList(Block() for _ in range(12)), nn.LayerNorm(dim, eps=1e-6)
            self.head = nn.Linear(dim, 10)

        def forward(self, images, running: bool):
            x = self.patch(images).flatten(2).transpose(1, 2)
            x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.pos
            tokens = []
            for block in self.blocks:
                x = block(x, running)
                tokens.append(self.norm(x[:, 0]) if tuned else self.norm(x)[:, 0])
            return torch.stack(tokens, 1)

    model = ViT().eval()
    trained = [*model.head.parameters()] + [p for b in model.blocks for p in b.attn.pairs[-1]]
    model.requires_grad_(False)
    [p.requires_grad_(True) for p in trained]
    optimiser = torch.optim.Adam(trained, lr=5e-4)
    forward = torch.compile(model) if tuned else model
    images, labels = torch.rand(args.batch_size, 3, args.image_size, args.image_size), torch.arange(args.batch_size) % 10

    def step():
        new = forward(images, True)
        loss = F.cross_entropy(model.head(new[:, -1]), labels)
        if args.task > 1:
            with torch.no_grad():
                old = forward(images, False)
            spectrum = lambda f: torch.linalg.eigvalsh(f @ f.transpose(1, 2)) if tuned else torch.linalg.svdvals(f @ f.transpose(1, 2))
            loss = loss + F.smooth_l1_loss(spectrum(new), spectrum(old))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    def timed(what):
        for _ in range(2):
            what()
        seconds = []
        for _ in range(args.steps):
            began = time.perf_counter()
            what()
            seconds.append(time.perf_counter() - began)
        return args.batch_size / statistics.median(seconds)

    def predict():
        with torch.no_grad():
            model.head(forward(images, True)[:, -1])

    train = timed(step)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"train": train, "predict": timed(predict), "memory": memory}))


def run(side):
    shape = ["--size", args.size, "--image-size", str(args.image_size), "--batch-size", str(args.batch_size), "--task", str(args.task)]
    shape += ["--steps", str(args.steps), "--threads", str(args.threads)]
    if side != "cilbench":
        command = [sys.executable, __file__, "--side", side, "--rank", str(args.rank), *shape]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [args.cilbench, "bench", "step", "--json", file.name, "--tasks", str(max(10, args.task)), "--set", f"rank={args.rank}", *shape]
        subprocess.run(command, check=True, capture_output=True)
        found = json.loads(Path(file.name).read_text())
    return {
        "train": found["train_images_per_second"],
        "predict": found["predict_images_per_second"],
        "memory": found["peak_memory"],
        "floor": found["train_of_floor"],
    }


if args.side:
    torch_side(args.side)
    sys.exit()

sides = ["cilbench", "authors", "tuned"]
rounds = [{side: run(side) for side in sides} for _ in range(args.rounds)]
print(f"ViT {args.size}, {args.image_size} px, batch {args.batch_size}, task {args.task}, {args.threads} threads, f32, {args.rounds} rounds by turns")
for side in sides:
    middle = {key: statistics.median(r[side][key] for r in rounds) for key in rounds[0][side]}
    floor = f", {100 * middle['floor']:.0f} % of the floor" if "floor" in middle else ""
    print(f"{side:9} step {middle['train']:8.2f} images/s, prediction {middle['predict']:8.2f} images/s, peak {middle['memory'] / 1e9:5.2f} GB{floor}")
for side in sides[1:]:
    ratio = {key: statistics.median(r["cilbench"][key] / r[side][key] for r in rounds) for key in ("train", "predict", "memory")}
    print(f"against {side}: step {ratio['train']:.2f}, prediction {ratio['predict']:.2f}, memory {ratio['memory']:.2f}")
