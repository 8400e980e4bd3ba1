"""temporal.{safetensors,json}: smoothing, events and calibration as the authors' release does them.

Scores, labels and the parameters of each case are given. Two quirks of the release are kept on
purpose, since tests show where this project differs: the kernel is cut to the sequence's length and
then made odd, so that an even sequence shorter than the kernel comes back one value longer (out_len);
and a grid cell where that happens to any video has the score -1.
"""

import numpy as np
from safetensors.numpy import load_file

from .common import GOLDEN, load_json


def smooth(scores, sigma):
    size = min(int(6 * sigma) + 1, len(scores))
    size += size % 2 == 0
    x = np.arange(size) - size // 2
    kernel = np.exp(-(x**2) / (2 * sigma**2))
    return np.convolve(scores, kernel / kernel.sum(), mode="same")


def localize(scores, case):
    if case["smoothing"]:
        scores = smooth(scores, case["sigma"])
    over = np.r_[False, scores > case["threshold"], False].astype(int)
    edges = np.flatnonzero(np.diff(over)).reshape(-1, 2) / case["fps"]
    return [[start, end] for start, end in edges.tolist() if end - start >= case["min_duration"]]


def grids(videos, sigmas, thresholds):
    """Frame-level F1, precision and recall of every pair."""
    truth = np.concatenate([labels for _, labels in videos]) == 1
    out = {m: np.full((len(sigmas), len(thresholds)), -1.0) for m in ("f1", "precision", "recall")}
    for i, sigma in enumerate(sigmas):
        smoothed = [smooth(scores, sigma) for scores, _ in videos]
        if any(len(s) != len(labels) for s, (_, labels) in zip(smoothed, videos)):
            continue
        smoothed = np.concatenate(smoothed)
        for j, threshold in enumerate(thresholds):
            found = smoothed > threshold
            hits = (found & truth).sum()
            precision = hits / found.sum() if found.any() else 0.0
            recall = hits / truth.sum() if truth.any() else 0.0
            both = precision + recall
            out["f1"][i, j] = 2 * precision * recall / both if both else 0.0
            out["precision"][i, j], out["recall"][i, j] = precision, recall
    return out


def make():
    given = load_file(GOLDEN / "temporal.safetensors")
    cases = load_json("temporal.json")
    tensors = {k: v for k, v in given.items() if "scores_" in k or "labels_" in k}
    tensors["cal_sigmas"] = np.arange(0.5, 3.01, 0.25)
    tensors["cal_thresholds"] = np.linspace(0.1, 0.9, 81)
    for case in cases["smooth"]:
        result = smooth(given[f"scores_{case['n']}"], case["sigma"])
        tensors[case["key"]] = result
        case["out_len"] = len(result)
    for case in cases["localize"]:
        case["events"] = localize(given[f"loc_scores_{case['n']}"], case)
    for number in {case["case"] for case in cases["calibrate"]}:
        count = sum(k.startswith(f"cal{number}_scores_") for k in given)
        videos = [
            (given[f"cal{number}_scores_{i}"], given[f"cal{number}_labels_{i}"])
            for i in range(count)
        ]
        made = grids(videos, tensors["cal_sigmas"], tensors["cal_thresholds"])
        tensors[f"cal{number}_f1_grid"] = made["f1"]
        for case in cases["calibrate"]:
            if case["case"] == number:
                grid = made[case["metric"]]
                i, j = np.unravel_index(grid.argmax(), grid.shape)
                # Without any valid cell the release keeps the paper's values.
                valid = grid.max() >= 0
                case["sigma"] = tensors["cal_sigmas"][i].item() if valid else 1.5
                case["threshold"] = tensors["cal_thresholds"][j].item() if valid else 0.65
    return {"temporal.safetensors": (tensors, None), "temporal.json": cases}
