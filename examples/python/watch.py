#!/usr/bin/env python3
"""Watches a camera for ever, and goes on at another server when one is lost.

A server that drains, dies, is full or falls silent ends the stream; the next one is asked for the same
camera. Nothing is scored in between, and that part is told as a gap in wall time. A new stream has its
own media time and event ids, so every line names its session.
"""

import json
import sys
import threading
import time

import grpc

from client import Servers, arguments, clock, is_final, seconds, stubs, wait_after, why


class Lost(Exception):
    """The stream ended, and another one may go on."""


class Watchdog:
    """Cancels a call that brings nothing for too long."""

    def __init__(self, call, silence_s):
        self.call, self.silence_s = call, silence_s
        self.fired = False
        self.done = threading.Event()
        self.heard()

    def heard(self):
        self.last = time.monotonic()

    def __enter__(self):
        threading.Thread(target=self.run, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.done.set()

    def run(self):
        while not self.done.wait(min(1.0, self.silence_s / 4)):
            if time.monotonic() - self.last > self.silence_s:
                self.fired = True
                self.call.cancel()
                return


class Watch:
    def __init__(self, args):
        self.args = args
        self.d, self.services = stubs()
        self.servers = Servers(args)
        # Wall time (Unix seconds) up to which a segment has a score.
        self.covered = None
        self.lost_because = ""
        self.failures = 0
        self.session = ""

    def say(self, text, **fields):
        if self.args.json:
            print(json.dumps({"session": self.session, **fields}), flush=True)
        else:
            print(f"{self.session[:8]:8}  {text}", flush=True)

    def request(self):
        d = self.d
        source = d.UriSource(uri=self.args.uri)
        if self.args.transport:
            source.transport = {"tcp": d.RTSP_TRANSPORT_TCP, "udp": d.RTSP_TRANSPORT_UDP}[self.args.transport]
        # Provisional scores too: what a server that dies had not smoothed yet is not lost.
        options = d.DetectOptions(provisional=True, provisional_events=self.args.early)
        return d.WatchRequest(source=source, profile=self.args.profile, options=options)

    def forever(self):
        """Returns only when the media itself has ended (a file)."""
        while True:
            address, channel = self.servers.next()
            try:
                with channel:
                    return self.once(address, channel)
            except Lost as lost:
                wait = wait_after(self.failures)
                self.failures += 1
                self.lost_because = self.lost_because or str(lost)
                self.say(f"lost {lost}; again in {wait:.1f} s", lost=str(lost), retry_in_s=wait)
                time.sleep(wait)

    def once(self, address, channel):
        call = self.services.DetectionServiceStub(channel).Watch(self.request())
        with Watchdog(call, self.args.silence_s) as watchdog:
            try:
                for response in call:
                    watchdog.heard()
                    self.on(address, response)
            except grpc.RpcError as error:
                if watchdog.fired:
                    raise Lost(f"{address}: silent for {self.args.silence_s:.0f} s") from None
                if is_final(error):
                    sys.exit(f"{address}: {why(error)}")
                raise Lost(f"{address}: {why(error)}") from None

    def on(self, address, response):
        kind = response.WhichOneof("message")
        if kind == "opened":
            opened = response.opened
            self.session = opened.session_id
            self.say(
                f"opened at {address}: {opened.media.codec} {opened.media.width}x{opened.media.height}, "
                f"profile {opened.profile}",
                opened=address,
                profile_version=opened.profile_version,
            )
        elif kind == "frame_scores":
            self.scores(response)
        elif kind.startswith("event_"):
            event = getattr(response, kind).event
            self.say(
                f"{kind.replace('_', ' ')} {event.id}: {seconds(event.start):.2f} s .. "
                f"{seconds(event.end):.2f} s, peak {event.peak:.3f}",
                **{kind: event.id, "start_s": seconds(event.start), "end_s": seconds(event.end)},
            )
        elif kind == "gap":
            gap = response.gap
            begin, end = seconds(getattr(gap, "from")), seconds(gap.to)
            reason = self.d.GapReason.Name(gap.reason)
            self.say(f"gap {begin:.2f} s .. {end:.2f} s: {reason}, {gap.detail}", gap=reason, lost_s=end - begin)
        elif kind == "source_state":
            state = response.source_state
            name = self.d.SourceStatus.Name(state.status)
            self.say(f"camera {name}" + (f": {state.detail}" if state.detail else ""), source=name)
        elif kind == "summary":
            s = response.summary
            self.say(f"{s.frames} frames, {s.events} events, {s.gaps} gaps", summary=s.frames, gaps=s.gaps)

    def scores(self, response):
        scores = response.frame_scores
        first, last = scores.frames[0], scores.frames[-1]
        received = response.received_at.seconds + response.received_at.nanos * 1e-9
        if received:
            self.cover(received - (seconds(last.pts) - seconds(first.pts)), received)
        self.failures = 0
        final = scores.stage == self.d.SCORE_STAGE_FINAL
        if final or self.args.early:
            self.say(
                f"{seconds(first.pts):9.2f} s  p={first.probability:.3f}  p'={first.smoothed:.3f}"
                + ("" if final else "  provisional"),
                segment=scores.segment,
                final=final,
                frames=[first.index, last.index],
                p=first.probability,
                smoothed=first.smoothed,
            )

    def cover(self, begin, end):
        """These seconds of wall time have a score; tells what the last change of servers cost."""
        if self.covered is not None and self.lost_because:
            missing = max(begin - self.covered, 0.0)
            self.say(
                f"gap {clock(self.covered)} .. {clock(begin)}: {missing:.1f} s lost with {self.lost_because}",
                gap="SERVER_LOST",
                lost_s=missing,
                because=self.lost_because,
            )
            self.lost_because = ""
        self.covered = max(self.covered or end, end)


def main():
    parser = arguments(__doc__)
    parser.add_argument("uri", help="rtsp://user:password@host/path")
    parser.add_argument("--profile", default="", help="name of a profile; by default the active one")
    parser.add_argument("--transport", choices=["tcp", "udp"])
    parser.add_argument("--early", action="store_true", help="provisional scores and events too")
    parser.add_argument(
        "--silence-s",
        type=float,
        default=120.0,
        help="a stream that brings nothing for so long is given up; a model on a CPU needs minutes "
        "(default 120)",
    )
    args = parser.parse_args()
    try:
        Watch(args).forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
