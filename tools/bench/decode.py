"""From a file to 16 pictures of 448 x 448 pixels per segment: ours beside the authors' path.

    pip install decord pillow numpy
    python tools/bench/decode.py [FILE] [--runs 5] [--gop 30]

Theirs is what the release does for each segment of 48 frames: opens the file anew with decord (one
thread), reads 16 frames by index, makes them PIL images and resizes them (bicubic); its indices differ
from ours by a frame at most. Ours is `cargo bench --bench decode`, in a process of its own. Both
report CPU seconds (user and system, all threads) per segment, the best of the runs, taking turns; the
smallest is the one least disturbed. Fails unless our pixels of the first segment equal PIL's, of the
same RGB frames, to the byte. Without FILE a clip of 480 frames in 1080p is made with ffmpeg: moving
test pattern, noise over it, H.264.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image

SEGMENT, SAMPLES, SIDE = 48, 16, 448


def cpu():
    times = os.times()
    return times.user + times.system


def theirs(path):
    """CPU seconds per segment: reading, conversion and resizing."""
    from decord import VideoReader
    from decord import cpu as on_cpu

    frames = len(VideoReader(path, ctx=on_cpu(0), num_threads=1))
    segments = max(1, frames // SEGMENT)
    read = resized = 0.0
    for segment in range(segments):
        began = cpu()
        reader = VideoReader(path, ctx=on_cpu(0), num_threads=1)
        start = segment * SEGMENT
        end = min(start + SEGMENT, len(reader) - 1)
        step = (end - start) / SAMPLES
        arrays = [reader[int(start + step / 2 + i * step)].asnumpy() for i in range(SAMPLES)]
        read += cpu() - began
        began = cpu()
        for array in arrays:
            Image.fromarray(array).convert("RGB").resize((SIDE, SIDE), Image.BICUBIC)
        resized += cpu() - began
    return {"segments": segments, "read": read / segments, "resize": resized / segments}


def bench_binary():
    """Builds the bench; gives its path."""
    command = ["cargo", "bench", "--locked", "--bench", "decode", "--no-run"]
    built = subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)
    return re.search(r"Executable .*\((.*)\)", built.stderr)[1]


def ours(binary, path, dump=None):
    command = [binary, path] + ([dump] if dump else [])
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def check(folder):
    """Our pixels are PIL's."""
    frames = sorted(pathlib.Path(folder).glob("*.rgb"))
    assert len(frames) == SAMPLES, frames
    for frame in frames:
        offset, width, height = map(int, re.match(r"(\d+)-(\d+)x(\d+)", frame.stem).groups())
        rgb = np.fromfile(frame, np.uint8).reshape(height, width, 3)
        wanted = np.asarray(Image.fromarray(rgb).resize((SIDE, SIDE), Image.BICUBIC))
        got = np.fromfile(frame.with_name(f"{offset:02}.pixels"), np.uint8).reshape(wanted.shape)
        if not np.array_equal(got, wanted):
            raise SystemExit(f"frame {offset}: the pixels differ from PIL's")


def make(path, gop):
    picture = "testsrc2=size=1920x1080:rate=30,noise=alls=12:allf=t,format=yuv420p"
    command = ["ffmpeg", "-loglevel", "error", "-f", "lavfi", "-i", picture, "-frames:v", "480"]
    command += ["-c:v", "libx264", "-preset", "medium", "-crf", "23", "-g", str(gop), path]
    subprocess.run(command, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?")
    parser.add_argument("--bench", help="the bench's binary, else cargo builds it")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--gop", type=int, default=30, help="frames between key frames of the made clip")
    args = parser.parse_args()
    binary = args.bench or bench_binary()
    with tempfile.TemporaryDirectory() as folder:
        path = args.file or f"{folder}/clip.mp4"
        if not args.file:
            make(path, args.gop)
        ours(binary, path, folder)
        check(folder)
        runs = []
        for _ in range(args.runs):
            # Theirs in a process of its own, too.
            child = [sys.executable, __file__, "--theirs", path]
            peer = json.loads(subprocess.run(child, check=True, stdout=subprocess.PIPE).stdout)
            runs.append((ours(binary, path), peer))
            time.sleep(0.2)
    mine = min((run[0] for run in runs), key=lambda run: run["all"])
    peer = min((run[1] for run in runs), key=lambda run: run["read"] + run["resize"])
    total = peer["read"] + peer["resize"]
    print(f"{pathlib.Path(path).name}: {mine['frames']} frames, CPU seconds per segment, the best of {args.runs}")
    print(f"ours: {mine['all']:.3f} (decoding {mine['decode']:.3f}, RGB {mine['rgb']:.3f}, resizing {mine['resize']:.3f})")
    print(f"decord, PIL: {total:.3f} (reading {peer['read']:.3f}, resizing {peer['resize']:.3f})")
    print(f"{total / mine['all']:.2f} times; pixels equal PIL's")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--theirs"]:
        print(json.dumps(theirs(sys.argv[2])))
    else:
        main()
