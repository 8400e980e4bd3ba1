"""Hunting beside NumPy and scikit-learn, on the same features in the same run.

    pip install -r tests/golden/requirements.txt
    python tools/bench/hunting.py target/release/headhunt [--samples 200] [--runs 5]

Features are those of the 8B model's shape: 28 layers of 28 heads of 128 numbers, two prompts; random,
with a shift in every fifth head of the anomalous samples. Ours is the whole process `headhunt hunt`,
reading the file and writing the result included; the reference is the arithmetic alone. Prints wall and
CPU seconds of both, and fails unless the scores agree to 1e-6 relative and the chosen heads are the same.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

# One thread each, unless the caller says otherwise: on matrices as small as these two take longer.
for library in ("OMP", "OPENBLAS"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import numpy as np  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests" / "golden"))
from rhi import reference  # noqa: E402


def features(samples):
    rng = np.random.default_rng(7)
    values = rng.standard_normal((2, samples, 28, 28, 128), dtype=np.float32)
    labels = np.arange(samples) % 2
    heads = np.arange(28 * 28).reshape(28, 28) % 5 == 0
    values[:, labels == 1] += (0.3 * heads[None, None, :, :, None]).astype(np.float32)
    return values, labels.astype(np.int64)


def timed(work, who):
    before, began = resource.getrusage(who), time.perf_counter()
    result = work()
    wall, after = time.perf_counter() - began, resource.getrusage(who)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return result, wall, cpu


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("headhunt")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    values, labels = features(args.samples)
    with tempfile.TemporaryDirectory() as folder:
        source, out = pathlib.Path(folder, "features.safetensors"), pathlib.Path(folder, "hunt.json")
        save_file({"features": values, "labels": labels}, source)
        command = [args.headhunt, "hunt", "--features", source, "--out", out]

        def ours():
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        runs = [timed(ours, resource.RUSAGE_CHILDREN)[1:] for _ in range(args.runs)]
        found = json.loads(out.read_text())
    wall, cpu = min(runs)
    print(f"headhunt hunt: {wall:.3f} s wall, {cpu:.3f} s CPU (the best of {args.runs})")
    expected, slow, slow_cpu = timed(lambda: reference(values, labels), resource.RUSAGE_SELF)
    print(f"NumPy, scikit-learn: {slow:.1f} s wall, {slow_cpu:.1f} s CPU")
    print(f"{slow / wall:.0f} times in wall time, {slow_cpu / cpu:.0f} times in CPU time")
    rss = np.array(found["rss"])
    if not np.allclose(rss, expected["rss_f64"], rtol=1e-6, atol=1e-12):
        raise SystemExit(f"the scores differ by {np.abs(rss - expected['rss_f64']).max()}")
    chosen = [list(head) for head in found["heads"]]
    if chosen != expected["top_f64"].tolist():
        raise SystemExit(f"the heads differ: {chosen}, {expected['top_f64'].tolist()}")
    print("scores and heads agree")


if __name__ == "__main__":
    main()
