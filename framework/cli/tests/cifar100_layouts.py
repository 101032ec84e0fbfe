"""By hand: the real CIFAR-100 in its four layouts gives one data id and one accuracy matrix.

    python3 framework/cli/tests/cifar100_layouts.py DIR_OF_THE_PARQUET_FILES

Needs pandas, pyarrow, numpy, Pillow, 2 GB in the temporary folder, and target/release/cilbench. The pickles are written by Python's own module.
"""

import io
import json
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import pandas
from PIL import Image

CILBENCH = str(Path(__file__).parents[3] / "target/release/cilbench")
source = Path(sys.argv[1])
classes = (Path(__file__).parents[3] / "benchmarks/src/cifar100_classes.txt").read_text().split()

with tempfile.TemporaryDirectory() as folder:
    root = Path(folder)
    for layout in ("python/cifar-100-python", "binary/cifar-100-binary", "folders"):
        (root / layout).mkdir(parents=True)
    meta = {"fine_label_names": classes, "coarse_label_names": []}
    (root / "python/cifar-100-python/meta").write_bytes(pickle.dumps(meta, protocol=2))
    for split in ("train", "test"):
        rows = pandas.read_parquet(next(source.glob(f"{split}-*.parquet")))
        images = [Image.open(io.BytesIO(i["bytes"])).convert("RGB") for i in rows["img"]]
        planes = numpy.stack([numpy.asarray(i).transpose(2, 0, 1).reshape(-1) for i in images])
        fine, coarse = rows["fine_label"].tolist(), rows["coarse_label"].tolist()
        data = {"data": planes, "fine_labels": fine, "coarse_labels": coarse, "filenames": [f"{i}.png" for i in range(len(fine))]}
        (root / "python/cifar-100-python" / split).write_bytes(pickle.dumps(data, protocol=2))
        labels = numpy.array([coarse, fine], dtype="uint8").T
        (root / "binary/cifar-100-binary" / f"{split}.bin").write_bytes(numpy.hstack([labels, planes]).tobytes())
        for i, (image, label) in enumerate(zip(images, fine)):
            place = root / "folders" / split / classes[label]
            place.mkdir(parents=True, exist_ok=True)
            image.save(place / f"{i}.png")
    results = {}
    for layout, where in [("parquet", source), *((n, root / n) for n in ("python", "binary", "folders"))]:
        out = root / "runs" / layout
        small = ["--train-per-class", "5", "--test-per-class", "5", "--image-size", "32", "--epochs", "1", "--batch-size", "16"]
        command = [CILBENCH, "run", "--scenario", "cifar100-10", "--data-root", str(where), "--out", str(out), *small]
        subprocess.run(command, check=True, capture_output=True)
        record = json.loads((out / "run.json").read_text())
        check = subprocess.run([CILBENCH, "data", "check", "cifar100-10", "--data-root", str(where)], check=True, capture_output=True, text=True)
        full = next(line.split()[2] for line in check.stdout.splitlines() if line.startswith("data id"))
        results[layout] = (full, record["data_id"], record["accuracy_matrix"])
        print(f"{layout:8} data id {full} (run: {record['data_id']}), last {record['last']:.2f}")
    assert len({json.dumps(r) for r in results.values()}) == 1, "the layouts differ"
    print("all four agree")
