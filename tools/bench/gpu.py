#!/usr/bin/env python3
"""Runs ours and transformers on this machine's GPU, one after the other on the same weights.

    make gpu-bench PYTHON=python3 PRESETS="1b 8b"

Needs a Python with PyTorch (CUDA), transformers, torchvision and Pillow, and a build with the feature cuda. For each
shape it writes random weights with `headhunt model synthesize`, then runs, per batch size: ours over all layers, ours down
to the layer of the deepest expert head, and transformers with sdpa, with eager attention and with every layer compiled;
then the authors' pipeline on one segment. `--profile` adds a table of where our GPU time goes, from Nsight Compute.

Writes one JSON object per line to --out and a table to standard output. Nothing is skipped in silence: what failed is
a line with its reason.
"""

import argparse
import collections
import csv
import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

# Decoder layers that the job needs: at 8B the deepest head that the authors publish lies in layer 23 of 28 (XD-Violence);
# about the same share of the others.
JOB_LAYERS = {"1b": 18, "2b": 24, "8b": 24, "14b": 41, "38b": 55}
MODES = {
    "sdpa": ["--attention", "sdpa"],
    "eager": ["--attention", "eager"],
    "compiled": ["--attention", "sdpa", "--compile"],
}
HERE = Path(__file__).resolve().parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--headhunt", type=Path, default=Path("target/release/headhunt"))
    parser.add_argument("--presets", nargs="+", default=["1b", "2b", "8b"], choices=JOB_LAYERS)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--peers", nargs="*", default=list(MODES), choices=MODES)
    parser.add_argument("--no-job", action="store_true", help="without the authors' pipeline")
    parser.add_argument("--repeats", type=int, default=5, help="timed passes")
    parser.add_argument("--steady", type=int, default=0, help="passes to look for growing memory in")
    parser.add_argument("--profile", action="store_true", help="needs ncu on the PATH")
    parser.add_argument("--limit", type=int, default=600, help="seconds for one command")
    parser.add_argument("--work", type=Path, default=Path("target/gpu-bench"), help="for the weights")
    parser.add_argument("--out", type=Path, default=Path("target/gpu-bench/figures.jsonl"))
    return parser.parse_args()


class Runner:
    """Runs commands within their limit, and keeps what they measured."""

    def __init__(self, args):
        self.args = args
        args.out.parent.mkdir(parents=True, exist_ok=True)
        self.out = args.out.open("w")
        self.rows = []

    def keep(self, who, preset, figures):
        figures = {"who": who, "preset": preset, **figures}
        self.rows.append(figures)
        self.out.write(json.dumps(figures) + "\n")
        self.out.flush()

    def run(self, who, preset, command):
        started = time.time()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=self.args.limit, check=False
            )
            text, failure = done.stdout, done.stderr.strip() if done.returncode else None
        except subprocess.TimeoutExpired as expired:
            text = (expired.stdout or b"").decode()
            failure = f"no result within {self.args.limit} s"
        for line in text.splitlines():
            if line.startswith("{"):
                self.keep(who, preset, json.loads(line))
        if failure is not None:
            self.keep(who, preset, {"failed": failure.splitlines()[-1] if failure else "it failed"})
        print(f"# {preset} {who}: {time.time() - started:.0f} s", file=sys.stderr, flush=True)


def bench(args, model, *more):
    command = [args.headhunt, "model", "bench", "--json", "--device", "cuda", "--model", model]
    return [str(part) for part in [*command, *more]]


def profile(runner, preset, model, layers):
    """Time of each kernel of one warm pass, from a run under Nsight Compute, which runs them one by one."""
    command = bench(runner.args, model, "--layers", layers, "--repeats", 1, "--warm-up", 1)
    ncu = ["ncu", "--clock-control", "none", "--metrics", "gpu__time_duration.sum", "--csv"]
    done = subprocess.run(
        [*ncu, *command], capture_output=True, text=True, timeout=runner.args.limit, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith('"')]
    if not lines:
        runner.keep("profile", preset, {"failed": (done.stderr or done.stdout)[-300:]})
        return
    rows = list(csv.DictReader(io.StringIO("\n".join(lines))))
    scale = {"ns": 1e-6, "us": 1e-3, "usecond": 1e-3, "nsecond": 1e-6, "ms": 1.0, "msecond": 1.0}
    # The products that measure the peak, the loading and the first pass come before; the second half of the kernels that
    # cut pictures up starts the timed pass.
    starts = [i for i, row in enumerate(rows) if row["Kernel Name"].startswith("patches")]
    rows = rows[starts[len(starts) // 2] :]
    times = collections.Counter()
    counts = collections.Counter()
    for row in rows:
        name = row["Kernel Name"].split("(")[0][:60]
        times[name] += float(row["Metric Value"].replace(",", "")) * scale[row["Metric Unit"]]
        counts[name] += 1
    total = sum(times.values())
    kernels = [
        {"kernel": name, "launches": counts[name], "ms": round(ms, 3), "share": round(ms / total, 4)}
        for name, ms in times.most_common(25)
    ]
    runner.keep("profile", preset, {"total_ms": round(total, 2), "kernels": kernels})


def table(rows):
    print("| shape | who | batch | ms a segment | vision | language | segments/s | TFLOP/s | share of peak |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        if "failed" in row:
            print(f"| {row['preset']} | {row['who']} | | {row['failed'][:60]} | | | | | |")
            continue
        if "pass_s" not in row:
            continue
        batch = row["batch"]
        each = [1e3 * row.get(key, 0) / batch for key in ("pass_s", "vision_s", "language_s")]
        rate = f"{row['tflops']:.0f} | {100 * row['share_of_peak']:.0f}%" if "tflops" in row else " | "
        if "prepare_s" in row:
            each[1], each[2] = 1e3 * row["prepare_s"], 1e3 * row["forward_s"]
        print(
            f"| {row['preset']} | {row['who']} | {batch} | {each[0]:.1f} | {each[1]:.1f} | {each[2]:.1f} | "
            f"{batch / row['pass_s']:.2f} | {rate} |"
        )


def main():
    args = arguments()
    args.headhunt = args.headhunt.resolve()
    runner = Runner(args)
    if args.profile and shutil.which("ncu") is None:
        raise SystemExit("ncu is not on the PATH; leave --profile out")
    batches = [str(batch) for batch in args.batches]
    for preset in args.presets:
        model = args.work / preset
        if not (model / "config.json").exists():
            command = [args.headhunt, "model", "synthesize", "--preset", preset, "--dtype", "bf16"]
            command += ["--seed", "1", "--layout", "hf", "--out", model]
            subprocess.run([str(part) for part in command], check=True, timeout=args.limit)
        timed = ["--repeats", str(args.repeats)]
        joined = ["--batch", ",".join(batches)]
        layers = str(JOB_LAYERS[preset])
        runner.run("ours, all layers", preset, bench(args, model, *timed, *joined))
        runner.run(f"ours, {layers} layers", preset, bench(args, model, *timed, *joined, "--layers", layers))
        runner.run(
            f"ours, {layers} layers, 5 prompts",
            preset,
            bench(args, model, *timed, "--layers", layers, "--prompts", 5),
        )
        if args.steady:
            steady = ["--layers", layers, "--repeats", str(args.steady)]
            runner.run(f"ours, {args.steady} passes", preset, bench(args, model, *steady))
        if args.profile:
            profile(runner, preset, model, layers)
        peer = [sys.executable, str(HERE / "reference.py"), str(model), "--device", "cuda", "--dtype", "bf16"]
        # The same number of tokens as ours: 256 of each of the 16 frames, and the words.
        tokens = next((row["tokens"] for row in runner.rows if row["preset"] == preset and "tokens" in row), None)
        if tokens is not None:
            peer += ["--text-tokens", str(tokens - 16 * 256)]
        peer += ["--warm-up", "2", *timed, "--threads", str(os.cpu_count() or 1)]
        for name in args.peers:
            # Eager attention writes all scores, and each size is compiled by itself: fewer sizes of these.
            sizes = {"eager": batches[:1], "compiled": batches[::2]}.get(name, batches)
            runner.run(f"transformers, {name}", preset, [*peer, *MODES[name], "--batch", *sizes])
        if not args.no_job:
            runner.run("the authors' pipeline", preset, [*peer, "--job"])
    table(runner.rows)


if __name__ == "__main__":
    main()
