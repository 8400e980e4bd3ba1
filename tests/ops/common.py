"""What the operations tests share: processes that end with the test, free ports, a model to serve."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("HEADHUNT_BIN", ROOT / "target/release/headhunt")).resolve()
TOOLS = pathlib.Path(os.environ.get("OPS_TOOLS", ROOT / "target/ops"))
VENV = pathlib.Path(sys.executable).parent
PROMETHEUS = TOOLS / "prometheus/usr/bin"
MODEL = ROOT / "tests/golden/checkpoints/tiny/hf"
EXAMPLES = ROOT / "examples/python"


class Failed(Exception):
    """A check that did not hold."""


def check(holds, message):
    if not holds:
        raise Failed(message)


def say(text):
    print(f"  {text}", flush=True)


def run(*command, ok=True, timeout=300, **options):
    """Runs a command to its end; its output as text. `ok`: it must succeed."""
    done = subprocess.run(
        [str(c) for c in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        **options,
    )
    if ok:
        shown = " ".join(map(str, command))[:300]
        check(done.returncode == 0, f"{shown}: exit code {done.returncode}\n{done.stdout[-2000:]}")
        return done.stdout
    return done


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def eventually(what, holds, timeout=60.0):
    """Waits until `holds()` gives something true, and gives that."""
    end = time.monotonic() + timeout
    last = None
    while time.monotonic() < end:
        try:
            if found := holds():
                return found
        except (OSError, urllib.error.URLError) as error:
            last = error
        time.sleep(0.1)
    raise Failed(f"waited {timeout:.0f} s for {what}" + (f": {last}" if last else ""))


def http(url, timeout=5, ca=None, token=None):
    """Status and body; `ca`: authority of an https server, `token`: a bearer token."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    context = ssl.create_default_context(cafile=ca) if ca else None
    try:
        with urllib.request.urlopen(request, timeout=timeout, context=context) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Process:
    """A child whose output is kept; killed at the latest when the test ends."""

    def __init__(self, *command, env=None, cwd=None):
        self.name = pathlib.Path(str(command[0])).name
        self.child = subprocess.Popen(
            [str(c) for c in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=None if env is None else {**os.environ, **env},
            cwd=cwd,
        )
        self.lines = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.child.stdout:
            self.lines.append(line.rstrip("\n"))

    def text(self):
        return "\n".join(self.lines)

    def line(self, pattern, timeout=60.0):
        """The first line that has the pattern; its match."""
        def look():
            for text in list(self.lines):
                if found := re.search(pattern, text):
                    return found
            if self.child.poll() is not None:
                self.reader.join(1)
                raise Failed(f"{self.name} ended with {self.child.returncode}:\n{self.text()}")
            return None

        try:
            return eventually(f"{self.name} to say {pattern!r}", look, timeout)
        except Failed as failed:
            raise Failed(f"{failed}\n{self.text()[-4000:]}") from None

    def json(self):
        """Lines that are JSON objects."""
        return [json.loads(line) for line in list(self.lines) if line.startswith("{")]

    def signal(self, number):
        self.child.send_signal(number)

    def wait(self, timeout=30.0):
        code = self.child.wait(timeout)
        self.reader.join(2)
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.child.poll() is None:
            self.child.kill()
            self.child.wait()


def known_settings():
    return run(BIN, "serve", "--print-defaults")


class Server(Process):
    """`headhunt serve` on loopback."""

    def __init__(self, site, port=None, ca=None, **settings):
        self.ca = ca
        self.port, self.metrics_port = port or free_port(), free_port()
        settings = {
            "cameras__capacity_share": "1000",
            "cameras__max_delay_s": "30",
            "shutdown__grace_s": "20",
            **settings,
        }
        # Cameras of the tests are on this machine, which a server does not allow by itself.
        if re.search(r"^allow = \[\]", known_settings(), re.M):
            settings.setdefault("sources__allow", "127.0.0.0/8")
        super().__init__(
            BIN, "serve", "--device", "cpu", "--model", MODEL, "--profile", site.profile,
            "--listen", self.address, "--metrics-listen", self.metrics_address,
            env={f"HEADHUNT__{key.upper()}": value for key, value in settings.items()},
        )

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def metrics_address(self):
        return f"127.0.0.1:{self.metrics_port}"

    def ready(self):
        eventually("the server", lambda: self.child.poll() is not None or self.is_ready(), 120)
        check(self.child.poll() is None, f"the server ended:\n{self.text()}")
        return self

    def page(self, path, token=None):
        scheme = "https" if self.ca else "http"
        return http(f"{scheme}://{self.metrics_address}{path}", ca=self.ca, token=token)

    def is_ready(self):
        return self.page("/ready")[0] == 200

    def metrics(self):
        status, text = self.page("/metrics")
        check(status == 200, f"/metrics answers {status}")
        return text

    def value(self, series):
        """The value of one series as it stands in the scrape, or None."""
        for line in self.metrics().splitlines():
            if line.startswith(series + " "):
                return float(line.rsplit(" ", 1)[1])
        return None


class Camera(Process):
    """`headhunt camera` on loopback."""

    def __init__(self, clip):
        super().__init__(BIN, "camera", clip, "--port", "0")
        self.url = self.line(r"rtsp://\S+").group(0)


class Site:
    """Labelled clips, a profile for cameras made of them, and a clip in which something happens."""

    def __init__(self, folder):
        self.folder = folder
        self.clip = folder / "yard.mp4"
        self.profile = folder / "cam.json"
        for name, quiet in (("a", "gradient"), ("b", "ball")):
            encode(folder / f"{name}.mp4", [(quiet, 48), ("snow", 80), (quiet, 48)])
        for name, quiet in (("c", "gradient"), ("d", "ball")):
            encode(folder / f"{name}.mp4", [(quiet, 128)])
        manifest = folder / "clips.csv"
        manifest.write_text(
            "video,label,start_frame,end_frame\n"
            "a.mp4,anomaly,48,128\nb.mp4,anomaly,48,128\nc.mp4,normal,,\nd.mp4,normal,,\n"
        )
        run(BIN, "calibrate", "--model", MODEL, "--device", "cpu", "--manifest", manifest,
            "--segment-seconds", "1.6", "--out", self.profile)
        encode(self.clip, [("gradient", 48), ("snow", 48), ("gradient", 64)])


def encode(path, parts):
    """An MP4 of 64 x 48 at 10 frames a second, a key frame each second; parts: (pattern, frames)."""
    sources = " ".join(
        f"videotestsrc num-buffers={frames} pattern={pattern} ! "
        f"video/x-raw,format=I420,width=64,height=48,framerate=10/1 ! joined."
        for pattern, frames in parts
    )
    pipeline = (
        f"concat name=joined ! x264enc key-int-max=10 speed-preset=ultrafast tune=zerolatency ! "
        f"h264parse ! mp4mux faststart=true ! filesink location={path} {sources}"
    )
    run("gst-launch-1.0", "-q", "-e", *pipeline.split())


@contextlib.contextmanager
def site():
    with tempfile.TemporaryDirectory(prefix="headhunt-ops-") as folder:
        yield Site(pathlib.Path(folder))


def end(process, number=signal.SIGTERM, timeout=60.0):
    """Asks a process to end; its exit code."""
    process.signal(number)
    return process.wait(timeout)
