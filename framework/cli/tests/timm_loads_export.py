"""Checks that timm loads what `cilbench export` writes, and predicts the same classes as the run did. Needs torch, timm, safetensors, numpy.

    cilbench run --out RUN && cilbench export RUN --out model.safetensors
    python3 timm_loads_export.py RUN model.safetensors benchmarks/data
"""
import csv
import gzip
import hashlib
import pathlib
import sys

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from timm.models.vision_transformer import VisionTransformer

run, model, data = map(pathlib.Path, sys.argv[1:4])
with safe_open(model, "pt") as f:
    meta = f.metadata()
    state = {k: f.get_tensor(k) for k in f.keys()}
dim, _, patch, _ = state["patch_embed.proj.weight"].shape
size = int(meta["image_size"])
vit = VisionTransformer(
    img_size=size, patch_size=patch, embed_dim=dim, num_heads=int(meta["heads"]), num_classes=len(state["head.bias"]),
    depth=sum(k.endswith("norm1.weight") for k in state), mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / dim,
)
vit.load_state_dict(state, strict=True)
vit.eval()

images = np.frombuffer(gzip.open(data / "fashion-mnist-t10k-images-idx3.gz").read(), np.uint8, offset=16).reshape(-1, 28, 28)
by_key = {hashlib.sha256(np.repeat(i[..., None], 3, 2).tobytes()).hexdigest(): i for i in images}
mean, std = (torch.tensor([float(v) for v in meta[k].split(",")]).view(3, 1, 1) for k in ("mean", "std"))
short = size * 256 // 224
at = round((short - size) / 2)
rows = list(csv.DictReader(open(sorted((run / "predictions").glob("task-*.csv"))[-1])))
batch = []
for row in rows:
    image = Image.fromarray(by_key[row["key"]]).convert("RGB").resize((short, short), Image.BICUBIC).crop((at, at, at + size, at + size))
    batch.append((torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255 - mean) / std)
with torch.no_grad():
    logits = vit(torch.stack(batch))
same = sum(int(p) == int(row["prediction"]) for p, row in zip(logits.argmax(1), rows))
confidence = max(abs(float(c) - float(row["confidence"])) for c, row in zip(logits.softmax(1).max(1).values, rows))
print(f"{same} of {len(rows)} predictions equal; largest difference of a confidence {confidence:.1e}")
sys.exit(0 if same >= 0.995 * len(rows) and confidence < 0.05 else 1)
