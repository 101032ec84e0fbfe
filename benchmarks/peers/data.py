"""Decode and augment, cilbench against torchvision's DataLoader: the same files, the same number of workers, by turns.

    python3 benchmarks/peers/data.py --folder DIR                train/<class>/*.jpg below DIR
    python3 benchmarks/peers/data.py --cifar100 DIR              the hub's parquet files, 32 to 224 pixels; needs pyarrow or pandas

Needs torch, torchvision and a built target/release/cilbench. Each side's time is that of one pass over the training images, without start-up: the
DataLoader's workers are running before the clock starts.
"""

import argparse
import io
import os
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from torchvision import datasets, transforms

parser = argparse.ArgumentParser()
parser.add_argument("--folder")
parser.add_argument("--cifar100")
parser.add_argument("--image-size", type=int, default=224)
parser.add_argument("--workers", type=int, default=os.cpu_count())
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--images", type=int, default=10_000)
parser.add_argument("--cilbench", default=str(Path(__file__).parents[2] / "target/release/cilbench"))
args = parser.parse_args()

TRANSFORM = transforms.Compose([
    transforms.RandomResizedCrop(args.image_size, scale=(0.05, 1.0), ratio=(3 / 4, 4 / 3)),
    transforms.RandomHorizontalFlip(),
    transforms.ToTensor(),
])


class Held(torch.utils.data.Dataset):
    """Images held decoded, as torchvision's CIFAR100 holds them."""

    def __init__(self, folder):
        import pandas

        rows = pandas.read_parquet(next(Path(folder).glob("train-*.parquet")))
        self.images = [Image.open(io.BytesIO(i["bytes"])).convert("RGB").copy() for i in rows["img"][: args.images]]
        self.labels = rows["fine_label"][: args.images].tolist()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return TRANSFORM(self.images[index]), self.labels[index]


def torchvision_side():
    data = Held(args.cifar100) if args.cifar100 else datasets.ImageFolder(Path(args.folder) / "train", TRANSFORM)
    if len(data) > args.images:
        data = torch.utils.data.Subset(data, range(args.images))
    return torch.utils.data.DataLoader(data, args.batch_size, shuffle=True, num_workers=args.workers, persistent_workers=True)


def torchvision_speed(loader):
    iterator = iter(loader)
    next(iterator)
    began, images = time.perf_counter(), 0
    for batch, _ in iterator:
        images += len(batch)
    return images / (time.perf_counter() - began)


def cilbench_speed(scenario, root):
    command = [args.cilbench, "bench", "data", scenario, "--data-root", root, "--image-size", str(args.image_size)]
    command += ["--batch-size", str(args.batch_size), "--images", str(args.images), "--threads", str(args.workers)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(re.search(r"px\s+(\d+)", out).group(1))


with tempfile.TemporaryDirectory() as folder:
    scenario = "cifar100-10"
    if not args.cifar100:
        scenario = str(Path(folder) / "folder.toml")
        Path(scenario).write_text('dataset = "folder"\ntasks = 1\n')
    root = str(Path(args.cifar100 or args.folder).resolve())
    loader = torchvision_side()
    torchvision_speed(loader)
    pairs = [(cilbench_speed(scenario, root), torchvision_speed(loader)) for _ in range(args.rounds)]

ours, theirs = zip(*pairs)
ratios = sorted(a / b for a, b in pairs)
print(f"{args.workers} workers, {args.image_size} px, {args.rounds} rounds by turns")
print(f"cilbench     {statistics.median(ours):8.0f} images/s ({min(ours):.0f} to {max(ours):.0f})")
print(f"torchvision  {statistics.median(theirs):8.0f} images/s ({min(theirs):.0f} to {max(theirs):.0f})")
print(f"ratio        {statistics.median(ratios):8.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
