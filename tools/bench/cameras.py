#!/usr/bin/env python3
"""How many cameras this machine's server really carries: real RTSP, real decoding, real calls.

    python tools/bench/cameras.py --model DIR --profile P.json --clip CLIP.mp4 --cameras 4 8 12 --seconds 60

Starts one `headhunt serve`, plays the clip as so many cameras (`headhunt camera`, each a process, which joins it at
another moment) and watches each of them in a call of its own. For each number of cameras, once they all run, it
measures for --seconds and prints a line: what was scored, what was not and why, how late scores reached the client
(from the moment at which the server had received a segment's last frame), and what it took. More of the server's
settings: --set model.device=cuda. Needs examples/python/requirements.txt. The numbers go to standard output, as a table,
and to --out, one JSON object a line.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples" / "python"))

import grpc  # noqa: E402
from client import seconds, stubs  # noqa: E402

SEGMENT_S = 1.6
# A server loads, checks and warms up a model: tens of gigabytes from a cold disk.
START_S = 600
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--headhunt", type=pathlib.Path, default=ROOT / "target/release/headhunt")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="checkpoint")
    parser.add_argument("--profile", type=pathlib.Path, required=True)
    parser.add_argument("--clip", type=pathlib.Path, required=True, help="what the cameras play")
    parser.add_argument("--cameras", type=int, nargs="+", default=[1, 4, 8], help="rising numbers")
    parser.add_argument("--seconds", type=float, default=60.0, help="to measure, for each number")
    parser.add_argument("--settle", type=float, default=8.0, help="seconds before that")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="settings of serve")
    parser.add_argument("--out", type=pathlib.Path, help="JSON lines")
    parser.add_argument("--seed", type=int, default=1, help="of the moments at which cameras are joined")
    return parser.parse_args()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A server of ours, and what it tells and takes."""

    def __init__(self, args, log):
        self.grpc, self.http = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        settings = {
            "server.listen": self.grpc,
            "server.metrics_listen": self.http,
            "model.path": args.model.resolve(),
            "profiles.file": args.profile.resolve(),
            "sources.allow": "127.0.0.0/8",
            "streams.max_streams": 1024,
            **dict(pair.split("=", 1) for pair in args.set),
        }
        named = {f"HEADHUNT__{key.upper().replace('.', '__')}": str(value) for key, value in settings.items()}
        self.log = log.name
        self.begun = time.monotonic()
        self.process = subprocess.Popen([args.headhunt, "serve"], env={**os.environ, **named}, stderr=log, stdout=log)

    def wait(self):
        while not self.ready():
            if self.process.poll() is not None:
                raise SystemExit(f"the server ended: see {self.log}")
            if time.monotonic() - self.begun > START_S:
                raise SystemExit(f"no server within {START_S} s: see {self.log}")
            time.sleep(0.2)
        self.start_s = time.monotonic() - self.begun

    def ready(self):
        try:
            return urllib.request.urlopen(f"http://{self.http}/ready", timeout=2).status == 200
        except OSError:
            return False

    def metrics(self):
        """Each sample's value, by its name and labels."""
        text = urllib.request.urlopen(f"http://{self.http}/metrics", timeout=10).read().decode()
        found = {}
        for line in text.splitlines():
            sample = SAMPLE.match(line)
            if sample:
                labels = dict(re.findall(r'(\w+)="([^"]*)"', sample[2] or ""))
                found[sample[1], tuple(sorted(labels.items()))] = float(sample[3])
        return found

    def cost(self):
        """CPU seconds and resident bytes of the server and of its decoders."""
        parents, cpu, resident = {}, {}, {}
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            pid = int(folder.name)
            parents[pid], resident[pid] = int(fields[1]), int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
            # Those of decoders that have ended too.
            cpu[pid] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
        ours = [pid for pid in parents if self.is_ours(pid, parents)]
        return sum(cpu[pid] for pid in ours), resident.get(self.process.pid, 0), len(ours) - 1

    def is_ours(self, pid, parents):
        while pid and pid != self.process.pid:
            pid = parents.get(pid)
        return bool(pid)


class Camera:
    """A camera and the call that watches it, in a thread of its own."""

    def __init__(self, args, log):
        command = [args.headhunt, "camera", args.clip.resolve(), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.uri = self.process.stdout.readline().strip()
        if not self.uri:
            raise SystemExit(f"a camera did not start: see {log.name}")
        self.lock = threading.Lock()
        self.state = "opening"
        self.forget()

    def forget(self):
        with self.lock:
            self.scored, self.delays, self.gaps = 0, [], collections.Counter()

    def watch(self, server):
        threading.Thread(target=self.run, args=(server,), daemon=True).start()

    def run(self, server):
        d, services = stubs()
        request = d.WatchRequest(source=d.UriSource(uri=self.uri), options=d.DetectOptions(provisional=True))
        try:
            with grpc.insecure_channel(server.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                for response in services.DetectionServiceStub(channel).Watch(request):
                    self.on(d, response, time.time())
            self.state = "ended"
        except grpc.RpcError as error:
            self.state = f"{error.code().name}: {error.details()}"
        except Exception as error:
            self.state = f"{type(error).__name__}: {error}"
            raise

    def on(self, d, response, now):
        kind = response.WhichOneof("message")
        with self.lock:
            if kind == "opened":
                self.state = "open"
            elif kind == "gap":
                length = seconds(response.gap.to) - seconds(getattr(response.gap, "from"))
                self.gaps[d.GapReason.Name(response.gap.reason)] += length
            elif kind == "frame_scores" and response.frame_scores.stage != d.SCORE_STAGE_FINAL:
                received = response.received_at.seconds + response.received_at.nanos * 1e-9
                self.scored += 1
                self.delays.append(now - received)


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else float("nan")


def mean_between(before, after, name, **labels):
    """Mean of a histogram's observations between two scrapes."""
    key = tuple(sorted(labels.items()))
    count = after.get((f"{name}_count", key), 0) - before.get((f"{name}_count", key), 0)
    total = after.get((f"{name}_sum", key), 0) - before.get((f"{name}_sum", key), 0)
    return total / count if count else float("nan")


def known(value):
    """JSON has no NaN: what was not measured is null."""
    if isinstance(value, dict):
        return {key: known(inner) for key, inner in value.items()}
    return None if value != value else value


def measure(args, server, cameras):
    for camera in cameras:
        camera.forget()
    before, (cpu, _, _), begun = server.metrics(), server.cost(), time.monotonic()
    time.sleep(args.seconds)
    lasted = time.monotonic() - begun
    after, (cpu_after, resident, decoders) = server.metrics(), server.cost()
    taken = []
    for camera in cameras:
        with camera.lock:
            taken.append((camera.scored, list(camera.delays), camera.gaps.copy()))
    delays = [delay for _, those, _ in taken for delay in those]
    gaps = sum((those for _, _, those in taken), collections.Counter())
    stages = ["decode", "preprocess", "queue", "vision", "language", "score"]
    memory = {labels: value for (name, labels), value in after.items() if name == "headhunt_device_memory_bytes"}
    outcomes = {
        dict(labels).get("outcome", ""): value - before.get(("headhunt_segments_total", labels), 0)
        for (name, labels), value in after.items()
        if name == "headhunt_segments_total"
    }
    return {
        "cameras": len(cameras),
        "open": sum(camera.state == "open" for camera in cameras),
        "states": collections.Counter(camera.state[:160] for camera in cameras if camera.state != "open"),
        "seconds": round(lasted, 1),
        "segments": sum(scored for scored, _, _ in taken),
        "expected": round(lasted / SEGMENT_S * sum(camera.state == "open" for camera in cameras), 1),
        "delay_p50_s": quantile(delays, 0.5),
        "delay_p99_s": quantile(delays, 0.99),
        "delay_most_s": max(delays, default=float("nan")),
        "gaps_s": dict(gaps),
        "outcomes": {key: value for key, value in outcomes.items() if value},
        "stages_ms": {
            stage: 1e3 * mean_between(before, after, "headhunt_stage_seconds", stage=stage) for stage in stages
        },
        "batch": mean_between(before, after, "headhunt_batch_clips"),
        "segments_per_second_measured": after.get(("headhunt_segments_per_second", ())),
        "cpu_cores": (cpu_after - cpu) / lasted,
        "server_resident_bytes": resident,
        "decoders": decoders,
        "device_memory_bytes": {dict(labels).get("kind", str(labels)): value for labels, value in memory.items()},
    }


def main():
    args = arguments()
    stubs()
    out = args.out.open("w") if args.out else None
    with tempfile.NamedTemporaryFile("w", prefix="headhunt-cameras-", suffix=".log", delete=False) as log:
        print(f"# the server's log: {log.name}", file=sys.stderr)
        server, cameras = None, []
        moments = random.Random(args.seed)
        try:
            server = Server(args, log)
            server.wait()
            print(f"# serving after {server.start_s:.1f} s", file=sys.stderr, flush=True)
            print("| cameras | scored of expected | not scored, s | late: p50, p99, most, s | batch | busy cores | stages, ms |")
            print("|---|---|---|---|---|---|---|", flush=True)
            for number in args.cameras:
                while len(cameras) < number:
                    cameras.append(Camera(args, log))
                    time.sleep(moments.uniform(0, 2 * SEGMENT_S / number))
                    cameras[-1].watch(server)
                time.sleep(args.settle)
                if not any(camera.state == "open" for camera in cameras):
                    raise SystemExit(f"no camera is watched: {cameras[0].state}")
                row = measure(args, server, cameras)
                stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in row["stages_ms"].items())
                print(
                    f"| {row['open']} of {number} | {row['segments']} of {row['expected']:.0f} | "
                    f"{sum(row['gaps_s'].values()):.1f} | {row['delay_p50_s']:.3f}, {row['delay_p99_s']:.3f}, "
                    f"{row['delay_most_s']:.3f} | {row['batch']:.2f} | {row['cpu_cores']:.2f} | {stages} |",
                    flush=True,
                )
                for state, count in row["states"].items():
                    print(f"# {count} of them: {state}", file=sys.stderr, flush=True)
                if out:
                    out.write(json.dumps(known({"start_s": server.start_s, **row}), allow_nan=False) + "\n")
                    out.flush()
        finally:
            for process in [server and server.process, *(camera.process for camera in cameras)]:
                if process and process.poll() is None:
                    process.terminate()
            if server:
                server.process.wait(60)


if __name__ == "__main__":
    main()
