"""What cuda/check.sh has run, as a record in results/: record.py WORK OUT COMMIT. Exit code 0 if everything agrees."""

import datetime
import json
import re
import subprocess
import sys
from pathlib import Path

work, out, commit = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
# Losses after a few steps, device against CPU, relative. The additions are the same in another order; the relation term is a small difference of large numbers.
TOLERANCE = {"f32": 2e-2, "f64": 1e-6}
# Average accuracy of a short run in f32: training from other roundings is another run, so only coarse errors show.
POINTS = 5.0


def text(name):
    path = work / f"{name}.txt"
    return path.read_text(errors="replace") if path.exists() else ""


def ended_well(name):
    path = work / f"{name}.rc"
    return path.exists() and path.read_text().strip() == "0"


def json_of(path):
    return json.loads(path.read_text()) if path.exists() else None


def gpu():
    query = "name,driver_version,memory.total,compute_cap"
    try:
        found = subprocess.run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], capture_output=True, text=True, check=True).stdout
        return found.strip().splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []


checks = []


def check(what, passed, seen):
    checks.append({"what": what, "passed": bool(passed), "seen": seen})


for dtype in ("f64", "f32"):
    name = f"verify-{dtype}"
    summary = [line for line in text(name).splitlines() if " passed, " in line]
    check(f"verify {dtype}", ended_well(name), summary[-1] if summary else text(name).strip()[-300:])

speeds = []
for path in sorted(work.glob("bench-*-cuda.json")):
    name = path.stem.removesuffix("-cuda")
    _, size, dtype, batch = name.split("-")
    cuda, cpu = json_of(path), json_of(work / f"{name}-cpu.json")
    speeds.append({"size": size, "dtype": dtype, "batch": int(batch), "cuda": cuda, "cpu": cpu})
    if cpu:
        ours, theirs = cuda["losses"], cpu["losses"]
        worst = max((abs(ours[n] - v) / max(abs(v), 1e-6) for n, v in theirs.items()), default=float("inf"))
        check(f"losses of a step, {size} {dtype}", worst < TOLERANCE[dtype], f"worst relative difference {worst:.1e}")
for rc in sorted(work.glob("bench-*.rc")):
    if not ended_well(rc.stem):
        check(rc.stem, False, text(rc.stem).strip()[-300:])

pairs = [("run", "sr2-lora, the default run")]
pairs += [(p.stem.removesuffix("-cuda"), p.stem.removeprefix("method-").removesuffix("-cuda")) for p in sorted(work.glob("method-*-cuda.rc"))]
runs = []
for name, title in pairs:
    cuda, cpu = json_of(work / f"{name}-cuda" / "run.json"), json_of(work / f"{name}-cpu" / "run.json")
    if not (ended_well(f"{name}-cuda") and ended_well(f"{name}-cpu") and cuda and cpu):
        check(title, False, text(f"{name}-cuda").strip()[-300:] or "did not run")
        continue
    runs.append({"name": title, **{f"{place}_{key}": run[key] for place, run in (("cuda", cuda), ("cpu", cpu)) for key in ("last", "avg", "images_per_second")}})
    check(title, abs(cuda["avg"] - cpu["avg"]) <= POINTS, f"avg {cuda['avg']:.2f} on the GPU, {cpu['avg']:.2f} on the CPU")
check("a run scored from its counted state alone (--audit)", ended_well("audit-cuda"), text("audit-cuda").strip()[-200:])

names = {s["cuda"]["gpu"] for s in speeds if s["cuda"]}
name = next(iter(names), None) or "unknown GPU"
machine = {"gpu": name, "nvidia_smi": gpu(), "processor": next((s["cuda"]["processor"] for s in speeds), None)}
today = datetime.date.today().isoformat()
record = {"date": today, "commit": commit, "machine": machine, "checks": checks, "steps": speeds, "runs": runs}

lines = [f"# CUDA on {name}", "", f"{today}, commit {commit}, `cuda/check.sh`. {'; '.join(machine['nvidia_smi'])}. Host: {machine['processor']}.", ""]
lines += ["| check | | seen |", "|---|---|---|"]
lines += [f"| {c['what']} | {'ok' if c['passed'] else 'FAILED'} | {' '.join(str(c['seen']).split()).replace('|', '/')} |" for c in checks]
lines += ["", "A training step of SR²-LoRA, task 2 of 10, 224 px (`cilbench bench step`):", ""]
lines += ["| ViT | type | batch | images/s | prediction | CPU images/s | of the floor | GPU memory |", "|---|---|---|---|---|---|---|---|"]


def number(value, form):
    return "" if value is None else format(value, form)


for s in speeds:
    cuda, cpu = s["cuda"], s["cpu"] or {}
    memory = cuda["peak_device_memory"]
    cells = [s["size"], s["dtype"], str(s["batch"]), number(cuda["train_images_per_second"], ".1f"), number(cuda["predict_images_per_second"], ".1f")]
    cells += [number(cpu.get("train_images_per_second"), ".1f"), number(cuda["train_of_floor"], ".0%"), number(memory and memory / 1e9, ".2f") + (" GB" if memory else "")]
    lines.append("| " + " | ".join(cells) + " |")

stem = "cuda-" + (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unknown")
(out / f"{stem}.json").write_text(json.dumps(record, indent=1) + "\n")
(out / f"{stem}.md").write_text("\n".join(lines) + "\n")
failed = [c["what"] for c in checks if not c["passed"]]
print(f"\n{len(checks) - len(failed)} of {len(checks)} checks passed; written to {out / stem}.md and .json")
for what in failed:
    print(f"FAILED: {what}")
sys.exit(1 if failed else 0)
