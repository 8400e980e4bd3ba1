"""frame_indices.json: the frames that the authors' release samples, in each given case.

Two quirks of the release are kept on purpose, since tests show where this project differs: seconds
become frames by cutting off, and a range that reaches the end of the video is one frame short.
"""

import numpy as np

from .common import load_json


def indices(total, fps, count, bound):
    first, last = (int(b * fps) for b in bound) if bound else (0, total)
    last = max(0, min(last, total - 1))
    step = (last - first) / count
    return [int(first + step * (i + 0.5)) for i in range(count)]


def make():
    cases = load_json("frame_indices.json")
    for case in cases:
        case["idx"] = indices(case["total"], case["fps"], case["F"], case["bound"])
    return {"frame_indices.json": cases}
