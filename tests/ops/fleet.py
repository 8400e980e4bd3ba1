"""Two servers behind a real Envoy: streams spread, one server killed, one drained."""

import signal
import sys
import threading
import time

import yaml

import common
from common import Camera, Failed, Process, Server, check, eventually, free_port, http, say

sys.path.insert(0, str(common.EXAMPLES))

WATCHERS = 6
# A stream that lost its server waits half a second, then connects, describes the camera, waits for its next
# key frame (1 s here) and a whole segment (1.6 s); the machine that tests run on is busy.
LOST_AT_MOST_S = 20.0


class Envoy(Process):
    def __init__(self, folder, servers):
        config = yaml.safe_load((common.ROOT / "deploy/envoy.yaml").read_text())
        self.port, self.admin = free_port(), free_port()
        config["admin"]["address"]["socket_address"]["port_value"] = self.admin
        resources = config["static_resources"]
        resources["listeners"][0]["address"]["socket_address"]["port_value"] = self.port
        endpoints = resources["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"]
        check(len(endpoints) == len(servers), "deploy/envoy.yaml has two servers")
        for endpoint, server in zip(endpoints, servers):
            endpoint["endpoint"]["address"]["socket_address"]["port_value"] = server.port
        file = folder / "envoy.yaml"
        file.write_text(yaml.safe_dump(config))
        # --base-id-path: others on this machine may run an Envoy of their own.
        super().__init__(
            common.VENV / "envoy", "-c", file, "--log-level", "warning",
            "--use-dynamic-base-id", "--base-id-path", folder / "envoy-base-id",
            "--concurrency", "1",
        )
        self.address = f"127.0.0.1:{self.port}"

    def stat(self, name):
        _, text = http(f"http://127.0.0.1:{self.admin}/stats?filter=^{name}$")
        return int(text.rsplit(":", 1)[1]) if ":" in text else None

    def healthy(self, servers):
        eventually(
            f"{servers} healthy servers in Envoy",
            lambda: self.stat("cluster.headhunt.membership_healthy") == servers,
        )


class Watcher(Process):
    """examples/python/watch.py as it is."""

    def __init__(self, envoy, camera):
        super().__init__(sys.executable, common.EXAMPLES / "watch.py", "--json", "--server", envoy.address, camera.url)

    def opened(self, times=1):
        eventually(
            f"session {times} of a watcher",
            lambda: len([o for o in self.json() if "opened" in o]) >= times,
        )
        return self

    def finals(self):
        return [o for o in self.json() if o.get("final")]

    def lost(self):
        return [o for o in self.json() if o.get("gap") == "SERVER_LOST"]

    def check_whole(self):
        """Within each session every frame has exactly one final score, in order, and there is no gap."""
        for o in self.json():
            check(o.get("gap") in (None, "SERVER_LOST"), f"a gap that the server made: {o}")
        ends = {}
        for o in self.finals():
            first, last = o["frames"]
            expected = ends.get(o["session"], 0)
            check(first == expected, f"frames {expected}..{first} of session {o['session']} have no score")
            ends[o["session"]] = last + 1
        return ends


def scoring(server):
    return server.value('headhunt_streams{state="scoring"}') or 0


def spread(servers, envoy, camera):
    """Watchers one after the other: each goes to the server with the fewest streams."""
    watchers = []
    for _ in range(WATCHERS):
        watchers.append(Watcher(envoy, camera).opened())
    counts = [scoring(server) for server in servers]
    check(counts == [WATCHERS / 2] * 2, f"{WATCHERS} streams are spread as {counts}")
    say(f"{WATCHERS} streams through Envoy: {counts[0]:.0f} and {counts[1]:.0f}")
    return watchers


def kill(victim, other, envoy, watchers):
    for watcher in watchers:
        eventually("final scores", lambda w=watcher: len(w.finals()) >= 2)
    victim.signal(signal.SIGKILL)
    victim.wait()
    eventually("all streams at the other server", lambda: scoring(other) == WATCHERS)
    eventually(
        "the gaps to be told",
        lambda: sum(bool(w.lost()) for w in watchers) == WATCHERS / 2,
    )
    moved = [w for w in watchers if w.lost()]
    stayed = [w for w in watchers if not w.lost()]
    gaps = [gap["lost_s"] for w in moved for gap in w.lost()]
    check(len(gaps) == len(moved), f"each stream that moved has one gap: {gaps}")
    check(all(0 < gap < LOST_AT_MOST_S for gap in gaps), f"gaps of {gaps} s")
    for watcher in stayed:
        check(not [o for o in watcher.json() if "lost" in o], "a stream of the living server was disturbed")
    before = [len(w.finals()) for w in watchers]
    eventually("scores after it", lambda: all(len(w.finals()) > n for w, n in zip(watchers, before)))
    for watcher in watchers:
        watcher.check_whole()
    why = moved[0].lost()[0]["because"]
    say(f"one server killed: {len(moved)} streams went on at the other, gaps {min(gaps):.1f} to {max(gaps):.1f} s ({why})")


class Upload(threading.Thread):
    """A file that takes some seconds to send."""

    def __init__(self, envoy, clip, seconds):
        super().__init__(daemon=True)
        self.envoy, self.bytes, self.seconds = envoy, clip.read_bytes(), seconds
        self.frames, self.summary, self.error = 0, None, None
        self.begun = threading.Event()

    def run(self):
        import grpc
        from client import stubs

        d, services = stubs()

        def requests():
            yield d.DetectRequest(open=d.Open(upload=d.UploadSource(name="slow")))
            step = len(self.bytes) // 20 + 1
            for at in range(0, len(self.bytes), step):
                yield d.DetectRequest(chunk=self.bytes[at : at + step])
                self.begun.set()
                time.sleep(self.seconds / 20)

        try:
            with grpc.insecure_channel(self.envoy.address) as channel:
                for r in services.DetectionServiceStub(channel).Detect(requests()):
                    kind = r.WhichOneof("message")
                    if kind == "frame_scores":
                        self.frames += len(r.frame_scores.frames)
                    elif kind == "summary":
                        self.summary = r.summary
        except grpc.RpcError as error:
            self.error = error


def drain(victim, other, envoy, site, camera):
    """The server has one camera and one upload when it is told to end."""
    watcher = Watcher(envoy, camera).opened()
    upload = Upload(envoy, site.clip, 6)
    upload.start()
    check(upload.begun.wait(20), "the upload did not begin")
    # Opening until its first picture is decoded; the watcher scores.
    eventually("both at the new server", lambda: sum(
        victim.value(f'headhunt_streams{{state="{state}"}}') or 0 for state in ("opening", "scoring")
    ) == 2)
    eventually("final scores", lambda: len(watcher.finals()) >= 1)
    others = scoring(other)
    began = time.monotonic()
    victim.signal(signal.SIGTERM)
    envoy.healthy(1)
    unhealthy = time.monotonic() - began
    watcher.opened(times=2)
    upload.join(30)
    code = victim.wait(40)
    check(code == 0, f"the drained server ended with {code}:\n{victim.text()[-2000:]}")
    check(upload.error is None, f"the upload was cut: {upload.error}")
    check(upload.summary is not None and upload.frames == upload.summary.frames == 160,
          f"the upload has {upload.frames} frames, summary {upload.summary}")
    eventually("the gap to be told", watcher.lost)
    first = watcher.json()[0]["session"]
    summary = next((o for o in watcher.json() if "summary" in o), None)
    check(summary is not None, "the camera's stream ended without a summary")
    ends = watcher.check_whole()
    check(summary["summary"] == ends[first] and summary["gaps"] == 0,
          f"{ends[first]} frames were scored, the summary says {summary}")
    gap = watcher.lost()[0]
    check("draining" in gap["because"], f"the stream was ended with {gap['because']}")
    check(gap["lost_s"] < LOST_AT_MOST_S, f"a gap of {gap['lost_s']} s")
    check(scoring(other) == others + 1, "the camera did not go on at the other server")
    say(
        f"one server drained: Envoy knew after {unhealthy:.1f} s, the upload ended well with 160 frames, all "
        f"{ends[first]} frames of the camera were scored, and it went on elsewhere after {gap['lost_s']:.1f} s"
    )
    watcher.__exit__()


def main(site):
    with Camera(site.clip) as camera, Server(site) as a, Server(site) as b:
        a.ready(), b.ready()
        with Envoy(site.folder, [a, b]) as envoy:
            envoy.healthy(2)
            watchers = []
            try:
                watchers = spread([a, b], envoy, camera)
                kill(a, b, envoy, watchers)
                with Server(site, port=a.port) as again:
                    again.ready()
                    envoy.healthy(2)
                    drain(again, b, envoy, site, camera)
                for watcher in watchers:
                    watcher.check_whole()
            finally:
                for watcher in watchers:
                    watcher.__exit__()
