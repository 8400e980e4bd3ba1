"""preprocess.safetensors: pictures and what Pillow's bicubic makes of them.

Two noise pictures are given (`{height}x{width}_in`). The `pattern` pictures follow from a formula
that tests/golden_pixels.rs repeats, so only three rows and the SHA-256 of each result are kept.
"""

import hashlib

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from .common import GOLDEN

NOISE = [(56, 100, 57), (56, 240, 320)]

# (side, height, width): common video sizes, odd ones, single rows and pixels, and tall pictures on
# both sides of the ratio where Pillow 13 swaps its passes.
PATTERNS = [
    (448, 1080, 1920),
    (448, 720, 1280),
    (448, 240, 320),
    (448, 480, 640),
    (448, 448, 448),
    (448, 448, 300),
    (448, 301, 448),
    (448, 2160, 3840),
    (448, 576, 704),
    (112, 333, 449),
    (56, 1, 500),
    (56, 500, 1),
    (14, 1, 1),
    (448, 1, 1),
    (448, 3, 5),
    (448, 100, 57),
    (1, 97, 31),
    (56, 57, 55),
    (56, 140, 98),
    (56, 140, 97),
    (448, 1280, 720),
    (448, 640, 480),
    (448, 700, 400),
]


def pattern(height, width):
    """Noise, hard edges and gradients in 16 x 16 tiles, in 32-bit integers."""
    y, x, c = np.meshgrid(
        *(np.arange(n, dtype=np.uint32) for n in (height, width, 3)), indexing="ij"
    )
    noise = (x * np.uint32(73856093)) ^ (y * np.uint32(19349663)) ^ (c * np.uint32(83492791))
    noise = ((noise ^ (noise >> np.uint32(13))) * np.uint32(0x5BD1E995)) >> np.uint32(15)
    edges = (x // 5 + y // 7) % 2 * 255
    gradient = x * 3 + y * 2 + c * 85
    tile = (x // 16 + y // 16) % 3
    return (np.select([tile == 0, tile == 1], [noise, edges], gradient) & 255).astype(np.uint8)


def resize(picture, side):
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))


def make():
    given = load_file(GOLDEN / "preprocess.safetensors")
    out = {name: value for name, value in given.items() if name.endswith("_in")}
    for side, height, width in NOISE:
        size = f"{height}x{width}"
        out[f"{side}_{size}_u8"] = resize(given[f"{size}_in"], side)
    for side, height, width in PATTERNS:
        name = f"pattern_{side}_{height}x{width}"
        result = resize(pattern(height, width), side)
        digest = hashlib.sha256(result.tobytes()).digest()
        out[f"{name}_sha256"] = np.frombuffer(digest, np.uint8)
        out[f"{name}_rows"] = result[sorted({0, side // 2, side - 1})]
    return {"preprocess.safetensors": (out, None)}
