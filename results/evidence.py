"""Writes the tables of results/methods.md, everything below its marker, from finished run folders:

    python3 results/evidence.py RUNS        # a folder with runs of cifar100-10 and cifar100-20, as the commands on the page leave it

Means and standard deviations are over the seeds of one configuration. Published numbers stand here, each with its source.
"""

import json
import math
import sys
from collections import defaultdict
from pathlib import Path

PAGE = Path(__file__).with_name("methods.md")
MARKER = "<!-- Everything below is written by results/evidence.py. -->"
SD = "SD-LoRA paper (ICLR 2025), ViT-B/16 IN21k→1k"
IN21K = "ViT-B/16 IN21k, as collected in the project's notes (paper not noted)"
H = "--epochs 4 --batch-size 16 --set head_rate_factor=10.0"

# Method: (flags beside the common ones, kind of evidence, published rows (source, benchmark, last, avg)).
METHODS = {
    "sr2-lora": (H, "the authors' trajectories, three files (`cilbench verify`)", []),
    "lora-ca": (H, "the SR²-LoRA authors' trajectory (`cilbench verify`)", []),
    "inflora": (
        H,
        "the authors' method in the SR²-LoRA authors' harness, two trajectories (`cilbench verify`)",
        [
            ("InfLoRA paper (CVPR 2024), ViT-B/16 IN21k, 5 seeds", "CIFAR-100, 10 tasks", "86.51 ± 0.73", "91.70 ± 0.32"),
            ("InfLoRA paper", "ImageNet-R, 5 tasks", "77.52", "82.01"),
            ("InfLoRA paper", "ImageNet-R, 10 tasks", "75.65 ± 0.14", "80.82 ± 0.24"),
            ("InfLoRA paper", "ImageNet-R, 20 tasks", "71.01", "77.28"),
            (SD, "ImageNet-R, 5 tasks", "76.95", "81.81"),
            (SD, "ImageNet-R, 10 tasks", "74.75", "80.67"),
            (SD, "ImageNet-R, 20 tasks", "69.89", "76.68"),
            (SD, "DomainNet, 5 tasks", "71.59", "78.29"),
        ],
    ),
    "pm": (
        H,
        "an independent implementation, one trajectory with α and Fisher information; α also against a search for the minimum it stands for",
        [
            ("P&M paper (arXiv 2505.22389), ViT-B/16 IN21k→1k", "ImageNet-R, 10 tasks", "79.95", "85.29"),
            ("P&M paper", "ImageNet-R, 20 tasks", "76.37", ""),
            ("P&M paper", "CIFAR-100, 10 tasks", "88.45", ""),
            ("P&M paper", "CUB-200, 10 tasks", "78.29", ""),
        ],
    ),
    "l2p": (
        "--epochs 4 --batch-size 16",
        "an independent implementation, one trajectory; gradients of prompts against differences",
        [
            (SD, "ImageNet-R, 5 tasks", "73.04", "76.94"),
            (SD, "ImageNet-R, 10 tasks", "71.26", "76.13"),
            (SD, "ImageNet-R, 20 tasks", "68.97", "74.16"),
            (SD, "DomainNet, 5 tasks", "70.26", "75.83"),
        ],
    ),
    "lora": (
        H,
        "shares its code with `lora-ca`, whose trajectory holds its losses and weights",
        [
            ("P&M paper, sequential LoRA, IN21k→1k", "ImageNet-R, 10 tasks", "65.72", ""),
            ("P&M paper, sequential LoRA", "ImageNet-R, 20 tasks", "56.35", ""),
            ("P&M paper, sequential LoRA", "CIFAR-100, 10 tasks", "72.58", ""),
        ],
    ),
    "er": (f"{H} --set memory_batch_size=16", "an independent implementation, one trajectory with its memory", []),
    "der++": (f"{H} --set memory_batch_size=16", "an independent implementation, one trajectory with stored logits", []),
    "icarl": (f"{H} --set memory_batch_size=16", "an independent implementation, one trajectory with a shrinking memory and its means", []),
    "simplecil": ("", "an independent implementation, prototypes and logits", []),
    "slda": ("", "an independent implementation, means, scatter with OAS, logits", []),
    "aper-adapter": ("--epochs 4 --batch-size 16", "an independent implementation, one trajectory; gradients of adapters against differences", []),
    "ranpac": (
        "--set projection=2000",
        "an independent implementation, in both forms of its ridge: λ, sums, logits",
        [
            (IN21K, "CIFAR-100, 10 tasks", "91.09", "94.03"),
            (IN21K, "ImageNet-R, 10 tasks", "75.28", "80.66"),
            (IN21K, "CUB-200, 10 tasks", "87.88", "92.57"),
        ],
    ),
    "joint": (
        H,
        "an independent implementation, one trajectory",
        [
            (f"joint LoRA, {IN21K}", "CIFAR-100", "93.48", ""),
            (f"joint LoRA, {IN21K}", "ImageNet-R", "87.11", ""),
            (f"joint LoRA, {IN21K}", "CUB-200", "89.88", ""),
        ],
    ),
    "finetune": (
        "--epochs 4 --batch-size 16 --set learning_rate=5e-5",
        "an independent implementation, one trajectory; gradients of all weights against differences",
        [
            (f"{SD}, full fine-tuning", "ImageNet-R, 5 tasks", "64.92", "75.57"),
            (f"{SD}, full fine-tuning", "ImageNet-R, 10 tasks", "60.57", "72.31"),
            (f"{SD}, full fine-tuning", "ImageNet-R, 20 tasks", "49.95", "65.32"),
            (f"{SD}, full fine-tuning", "DomainNet, 5 tasks", "51.46", "67.08"),
        ],
    ),
    "linear-probe": ("--epochs 4 --batch-size 16 --set learning_rate=5e-3", "an independent implementation, one trajectory", []),
}
METRICS = ["last", "avg", "forgetting", "relation_drift"]


def runs(folder):
    """Finished records by (scenario, method), those of one data id and one configuration."""
    found = defaultdict(list)
    for path in sorted(Path(folder).rglob("run.json")):
        record = json.loads(path.read_text())
        if record["status"] == "finished":
            found[record["identity"]["scenario"]["name"], record["identity"]["method"]].append(record)
    for (scenario, method), records in found.items():
        kinds = {json.dumps([r["data_id"], r["identity"]["config"]], sort_keys=True) for r in records}
        assert len(kinds) == 1, f"{scenario}, {method}: {len(kinds)} data ids or configurations in one table"
    return found


def cell(values):
    """Mean ± standard deviation (n − 1)."""
    values = [v for v in values if v is not None]
    if not values:
        return ""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.2f}"
    return f"{mean:.2f} ± {math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1)):.2f}"


def measured(found, scenario):
    """All methods on one scenario, the best last accuracy first."""
    rows = [(m, found[scenario, m]) for m in METHODS if found[scenario, m]]
    rows.sort(key=lambda row: -sum(r["last"] for r in row[1]) / len(row[1]))
    lines = ["| method | seeds | last | avg | forgetting | relation drift | images stored |", "|---|---|---|---|---|---|---|"]
    for method, records in rows:
        values = " | ".join(cell([r[m] for r in records]) for m in METRICS)
        lines.append(f"| `{method}` | {len(records)} | {values} | {records[0]['stored_images']} |")
    return lines


def section(found, method):
    """Reproduced beside reported, of one method."""
    flags, evidence, published = METHODS[method]
    lines = [f"### {method}", "", f"Evidence: {evidence}. Flags: {f'`{flags}`' if flags else 'none'}.", ""]
    lines += ["| | benchmark | last | avg | forgetting | seeds |", "|---|---|---|---|---|---|"]
    for tasks in (10, 20):
        records = found[f"cifar100-{tasks}", method]
        values = " | ".join(cell([r[m] for r in records]) for m in METRICS[:3]) if records else "| |"
        lines.append(f"| **measured here**, ViT-Tiny | CIFAR-100, {tasks} tasks, small sample | {values} | {len(records) or 'not run'} |")
    for source, benchmark, last, avg in published:
        lines.append(f"| *reported*: {source} | {benchmark} | {last} | {avg} | | |")
    if not published:
        lines.append("| *reported* | | | | | |")
    return lines + [""]


found = runs(sys.argv[1])
text = PAGE.read_text().split(MARKER)[0] + MARKER + "\n"
for tasks in (10, 20):
    text += "\n".join(["", f"## Measured: {tasks} tasks", "", *measured(found, f"cifar100-{tasks}"), ""])
text += "\n## Method by method: reproduced and reported\n\n"
text += "\n".join(line for method in METHODS for line in section(found, method))
PAGE.write_text(text.rstrip() + "\n")
