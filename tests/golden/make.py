#!/usr/bin/env python3
"""Makes the golden files of this folder again, or compares them with fresh ones.

    python -m venv venv && venv/bin/pip install -r tests/golden/requirements.txt
    venv/bin/python tests/golden/make.py --check            # compare everything
    venv/bin/python tests/golden/make.py --only model       # write one group again

Everything runs on the CPU in float32 (eager attention) unless a name says _f64. README.md says what
the files hold and which inputs are given rather than made.
"""

import argparse
import json
import os
import sys

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from recipes import common


def groups():
    """Name -> function that returns {path: content}, imported only when wanted."""
    from recipes import frames, hunting, model, pixels, scoring, temporal, tokens

    return {
        "pixels": pixels.make,
        "tokens": tokens.make,
        "model-tiny": model.make_tiny,
        "model-tiny6b": lambda: model.make_own("tiny6b"),
        "model-tinywide": lambda: model.make_own("tinywide"),
        "rhi": hunting.make,
        "scorer": scoring.make,
        "temporal": temporal.make,
        "frames": frames.make,
    }


def write(path, content):
    target = common.GOLDEN / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, tuple):
        tensors, metadata = content
        save_file({k: as_torch(v) for k, v in tensors.items()}, target, metadata or None)
        target.chmod(0o644)
    elif isinstance(content, bytes):
        target.write_bytes(content)
    else:
        target.write_text(
            json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def as_torch(value):
    return (value if torch.is_tensor(value) else torch.from_numpy(np.array(value))).contiguous()


def compare(path, content, limit):
    """Lines that tell how far a fresh file is from the one on disk; and whether it is too far."""
    target = common.GOLDEN / path
    if not target.exists():
        return f"{path}: missing", False
    if isinstance(content, bytes):
        same = target.read_bytes() == content
        return f"{path}: {'equal' if same else 'DIFFERS'}", same
    if not isinstance(content, tuple):  # JSON: to the last digit
        same = json.loads(target.read_text(encoding="utf-8")) == json.loads(json.dumps(content))
        return f"{path}: {'equal' if same else 'DIFFERS'}", same
    fresh, meta = content
    stored = load_file(target)
    faults = sorted(set(fresh) ^ set(stored))
    known = common.metadata(target)
    faults += [f"metadata {k}" for k, v in (meta or {}).items() if known.get(k, v) != v]
    worst, at = 0.0, "all equal"
    for name in sorted(set(fresh) & set(stored)):
        a, b = as_torch(fresh[name]), stored[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            faults.append(f"{name}: {a.dtype}{list(a.shape)} against {b.dtype}{list(b.shape)}")
        elif torch.equal(a, b):
            continue
        elif not a.dtype.is_floating_point:
            faults.append(f"{name}: {(a != b).sum().item()} of {a.numel()} differ")
        else:
            a, b = a.double(), b.double()
            scale = b.abs().max().clamp(min=1.0)
            error = ((a - b).abs().max() / scale).item()
            if not error <= worst:
                worst, at = error, name
            if not error <= limit:
                faults.append(f"{name}: {error:.2e}")
    line = f"{path}: {len(stored)} tensors, worst relative difference {worst:.1e} ({at})"
    return line + "".join(f"\n    DIFFERS {fault}" for fault in faults), not faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", help="a group, or the start of its name")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument(
        "--limit",
        type=float,
        default=1e-5,
        help="largest difference in --check, relative to a tensor's largest value or 1",
    )
    args = parser.parse_args()
    # Sums in a fixed order, whatever the machine.
    torch.set_num_threads(1)

    makers = groups()
    wanted = args.only or [""]
    chosen = [name for name in makers if any(name.startswith(w) for w in wanted)]
    if not chosen:
        parser.error(f"no such group; there are {', '.join(makers)}")
    good = True
    for name in chosen:
        for path, content in makers[name]().items():
            if args.check:
                line, same = compare(path, content, args.limit)
                good &= same
            else:
                write(path, content)
                line = f"{path}: written"
            print(line, flush=True)
        if args.check and name in ("model-tiny6b", "model-tinywide"):
            from recipes import model

            worst = model.reload_check(name.removeprefix("model-"))
            good &= worst <= args.limit
            print(f"{name}: the hf files read by transformers differ by {worst:.1e}", flush=True)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
