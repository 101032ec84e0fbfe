"""Writes the tables of results/methods.md, everything below its marker, from results/methods-cifar100.csv:

    python3 results/evidence.py [RUNS PROGRAM COMMIT]

With RUNS, a folder of finished runs of cifar100-10 and cifar100-20 as the commands on the page leave them, their rows are first put into that file, one a
seed, as PROGRAM (a cilbench) exports them; COMMIT is what PROGRAM was built from. A row of several seeds counts until each of its seeds has a row of its own.
Means and standard deviations are over the seeds of one configuration. Published numbers stand here, each with its source.
"""

import csv
import json
import math
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

PAGE = Path(__file__).with_name("methods.md")
TABLE = Path(__file__).with_name("methods-cifar100.csv")
MARKER = "<!-- Everything below is written by results/evidence.py. -->"
SD = "SD-LoRA paper (ICLR 2025), ViT-B/16 IN21k→1k"
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
    "der++": (f"{H} --set memory_batch_size=16 --set alpha=0.5 --set beta=1.0", "an independent implementation, one trajectory with stored logits", []),
    "icarl": (f"{H} --set memory_batch_size=16", "an independent implementation, one trajectory with a shrinking memory and its means", []),
    "simplecil": ("", "an independent implementation, prototypes and logits", []),
    "slda": ("", "an independent implementation, means, scatter with OAS, logits", []),
    "aper-adapter": ("--epochs 4 --batch-size 16", "an independent implementation, one trajectory; gradients of adapters against differences", []),
    "ranpac": (
        "--set projection=2000",
        "an independent implementation, in both forms of its ridge: λ, sums, logits",
        [],
    ),
    "joint": (
        H,
        "an independent implementation, one trajectory",
        [],
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


KEPT = ["scenario", "data_id", "backbone", "weight_hash", "method", "method_version", "config_hash", "seeds", "n_seeds", "commit"]
COLUMNS = KEPT + [column for metric in METRICS for column in (metric, f"{metric}_std")] + ["stored_images"]


def exported(folder, program, commit):
    """A row for each finished run, as the program's leaderboard gives it."""
    for record in sorted(Path(folder).rglob("run.json")):
        if json.loads(record.read_text())["status"] != "finished":
            continue
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch, "row.csv")
            subprocess.run([program, "leaderboard", record.parent, "--export", path], check=True, stdout=subprocess.DEVNULL)
            for row in csv.DictReader(path.open()):
                values = {m: row[m] and f"{float(row[m]):.4f}" for m in METRICS}
                yield {c: row.get(c, "") for c in COLUMNS} | values | {"commit": commit}


def merged(rows, new):
    """All rows, the new ones in place of those they repeat."""
    keyed = {(r["scenario"], r["method"], r["seeds"]): r for r in [*rows, *new]}
    single = {key for key in keyed if " " not in key[2]}
    covered = lambda s, m, seeds: " " in seeds and all((s, m, seed) in single for seed in seeds.split())
    rows = [row for key, row in keyed.items() if not covered(*key)]
    return sorted(rows, key=lambda r: (r["scenario"], list(METHODS).index(r["method"]), r["seeds"]))


def grouped(rows):
    """Rows by (scenario, method), those of one data id, weights, version and configuration; of rows that share a seed the one with more seeds."""
    found = {}
    for row in sorted(rows, key=lambda r: -len(r["seeds"].split())):
        group = found.setdefault((row["scenario"], row["method"]), [])
        if not any(set(row["seeds"].split()) & set(other["seeds"].split()) for other in group):
            group.append(row)
    for (scenario, method), group in found.items():
        kinds = {tuple(r[c] for c in ("data_id", "weight_hash", "method_version", "config_hash")) for r in group}
        assert len(kinds) == 1, f"{TABLE.name}: {scenario}, {method}: more than one data id, weights, version or configuration: {kinds}"
    return found


def seeds(rows):
    return sum(len(r["seeds"].split()) for r in rows)


def moments(rows, metric):
    """Number of seeds, mean, and standard deviation (n − 1; none for one seed)."""
    parts = [(len(r["seeds"].split()), float(r[metric]), float(r[f"{metric}_std"] or 0)) for r in rows if r[metric]]
    n = sum(k for k, _, _ in parts)
    if n == 0:
        return 0, None, None
    mean = sum(k * m for k, m, _ in parts) / n
    squares = sum((k - 1) * s * s + k * (m - mean) ** 2 for k, m, s in parts)
    return n, mean, math.sqrt(squares / (n - 1)) if n > 1 else None


def cell(rows, metric):
    """Mean ± standard deviation."""
    n, mean, std = moments(rows, metric)
    if n == 0:
        return ""
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"


def measured(found, scenario):
    """All methods on one scenario, the best last accuracy first."""
    rows = [(m, found[scenario, m]) for m in METHODS if (scenario, m) in found]
    rows.sort(key=lambda row: -moments(row[1], "last")[1])
    lines = ["| method | seeds | last | avg | forgetting | relation drift | images stored |", "|---|---|---|---|---|---|---|"]
    for method, records in rows:
        values = " | ".join(cell(records, m) for m in METRICS)
        lines.append(f"| `{method}` | {seeds(records)} | {values} | {records[0]['stored_images']} |")
    return lines


def section(found, method):
    """Measured here beside reported, of one method."""
    flags, evidence, published = METHODS[method]
    told = [*textwrap.wrap(f"Evidence: {evidence}.", 100), f"Flags: {f'`{flags}`' if flags else 'none'}."]
    lines = [f"### {method}", "", *told, ""]
    lines += ["| | benchmark | last | avg | forgetting | seeds |", "|---|---|---|---|---|---|"]
    for tasks in (10, 20):
        records = found.get((f"cifar100-{tasks}", method), [])
        values = " | ".join(cell(records, m) for m in METRICS[:3]) if records else "| |"
        lines.append(f"| **measured here**, ViT-Tiny | CIFAR-100, {tasks} tasks, small sample | {values} | {seeds(records) or 'not run'} |")
    for source, benchmark, last, avg in published:
        lines.append(f"| *reported*: {source} | {benchmark} | {last} | {avg} | | |")
    if not published:
        lines.append("| *reported*: none was collected for this page | | | | | |")
    return lines + [""]


rows = list(csv.DictReader(TABLE.open()))
if len(sys.argv) > 1:
    rows = merged(rows, exported(*sys.argv[1:]))
    with TABLE.open("w") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
found = grouped(rows)
text = PAGE.read_text().split(MARKER)[0] + MARKER + "\n"
for tasks in (10, 20):
    text += "\n".join(["", f"## Measured: {tasks} tasks", "", *measured(found, f"cifar100-{tasks}"), ""])
text += "\n## Method by method: measured here and reported\n\n"
text += "\n".join(line for method in METHODS for line in section(found, method))
PAGE.write_text(text.rstrip() + "\n")
