"""Makes colors_<matrix>_<range>.safetensors: YCbCr triples and the RGB they stand for.

    pip install numpy==2.3.5 safetensors==0.7.0
    python tests/golden/make_colors.py

Float64, straight from the equations of ITU-R BT.601-7 section 2.5, BT.709-6 section 3 and
BT.2020-2 table 4; per depth n: `ycc<n>` [count, 3] (u8 or u16) and `rgb<n>` [count, 3] (u8).
"""

import itertools
import pathlib

import numpy as np
from safetensors.numpy import save_file

WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}


def levels(depth):
    top = 2**depth - 1
    scale = 2 ** (depth - 8)
    edges = [0, 1, 15 * scale, 16 * scale, 128 * scale - 1, 128 * scale, 235 * scale, 240 * scale, top]
    spread = np.linspace(0, top, 6).round().astype(int).tolist()
    return sorted(set(edges + spread))


def to_rgb(ycc, depth, weights, full):
    kr, kb = weights
    kg = 1 - kr - kb
    scale = 2.0 ** (depth - 8)
    y, cb, cr = (ycc[:, i].astype(np.float64) for i in range(3))
    if full:
        top = 2.0**depth - 1
        y, pb, pr = y / top, (cb - 128 * scale) / top, (cr - 128 * scale) / top
    else:
        y = (y - 16 * scale) / (219 * scale)
        pb, pr = (cb - 128 * scale) / (224 * scale), (cr - 128 * scale) / (224 * scale)
    r = y + 2 * (1 - kr) * pr
    b = y + 2 * (1 - kb) * pb
    g = (y - kr * r - kb * b) / kg
    rgb = np.stack([r, g, b], axis=1) * 255
    return np.clip(np.floor(rgb + 0.5), 0, 255).astype(np.uint8)


def main():
    folder = pathlib.Path(__file__).parent
    for name, weights in WEIGHTS.items():
        for full in (False, True):
            tensors = {}
            for depth in (8, 10, 12, 16):
                dtype = np.uint8 if depth == 8 else np.uint16
                ycc = np.array(list(itertools.product(levels(depth), repeat=3)), dtype=dtype)
                # A quarter of the deeper triples is plenty.
                if depth > 8:
                    ycc = ycc[::4]
                tensors[f"ycc{depth}"] = np.ascontiguousarray(ycc)
                tensors[f"rgb{depth}"] = to_rgb(ycc, depth, weights, full)
            save_file(tensors, folder / f"colors_{name}_{'full' if full else 'limited'}.safetensors")


if __name__ == "__main__":
    main()
