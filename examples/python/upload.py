#!/usr/bin/env python3
"""Uploads a video file and prints its scores and events while it is still being sent.

A server that goes away in the middle costs nothing but time: the file is sent again from its
beginning, to the next server, and what was printed before is not printed again.
"""

import json
import pathlib
import sys
import time

import grpc

from client import Servers, arguments, is_final, seconds, stubs, wait_after, why

CHUNK = 1 << 20


def requests(d, path, profile):
    yield d.DetectRequest(open=d.Open(upload=d.UploadSource(name=path.name), profile=profile))
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield d.DetectRequest(chunk=chunk)


class Printer:
    """Prints what is new: a repeated upload of the same bytes gives the same frames and events."""

    def __init__(self, as_json):
        self.as_json = as_json
        self.version = None
        self.scored = 0
        self.told = set()

    def line(self, fields, text):
        print(json.dumps(fields) if self.as_json else text, flush=True)

    def opened(self, opened):
        if self.version not in (None, opened.profile_version):
            # Another server has another profile: what it says does not continue what was said.
            self.scored, self.told = 0, set()
            print("another version of the profile answers: all of it is told again", file=sys.stderr)
        self.version = opened.profile_version

    def scores(self, d, scores):
        frames = [f for f in scores.frames if f.index >= self.scored]
        if scores.stage != d.SCORE_STAGE_FINAL or not frames:
            return
        first, last = frames[0], frames[-1]
        self.scored = last.index + 1
        self.line(
            {"frames": [first.index, last.index], "p": first.probability, "smoothed": first.smoothed},
            f"frames {first.index}..{last.index}  p={first.probability:.3f}  p'={first.smoothed:.3f}",
        )

    def event(self, kind, event):
        if (kind, event.id) in self.told:
            return
        self.told.add((kind, event.id))
        start, end = seconds(event.start), seconds(event.end)
        self.line(
            {kind: event.id, "start_s": start, "end_s": end, "peak": event.peak},
            f"{kind.replace('_', ' ')} {event.id}: {start:.2f} s .. {end:.2f} s, peak {event.peak:.3f}",
        )


def once(d, stub, path, args, printer):
    """One try; returns the summary."""
    for response in stub.Detect(requests(d, path, args.profile)):
        kind = response.WhichOneof("message")
        if kind == "opened":
            printer.opened(response.opened)
        elif kind == "frame_scores":
            printer.scores(d, response.frame_scores)
        elif kind in ("event_started", "event_ended"):
            printer.event(kind, getattr(response, kind).event)
        elif kind == "gap":
            gap = response.gap
            what = f"{seconds(getattr(gap, 'from')):.2f} s .. {seconds(gap.to):.2f} s: {gap.detail}"
            printer.line({"gap": what}, f"gap {what}")
        elif kind == "summary":
            return response.summary
    raise RuntimeError("the stream ended without a summary")


def main():
    parser = arguments(__doc__)
    parser.add_argument("video", type=pathlib.Path)
    parser.add_argument("--profile", default="", help="name of a profile; by default the active one")
    parser.add_argument("--tries", type=int, default=8, help="tries in all (default 8)")
    args = parser.parse_args()
    d, services = stubs()
    servers = Servers(args)
    printer = Printer(args.json)
    for tries in range(1, args.tries + 1):
        address, channel = servers.next()
        try:
            with channel:
                summary = once(d, services.DetectionServiceStub(channel), args.video, args, printer)
        except grpc.RpcError as error:
            if is_final(error) or tries == args.tries:
                sys.exit(f"{address}: {why(error)}")
            wait = wait_after(tries)
            print(f"{address}: {why(error)}; again in {wait:.1f} s", file=sys.stderr)
            time.sleep(wait)
            continue
        printer.line(
            {"summary": {"frames": summary.frames, "events": summary.events, "gaps": summary.gaps}},
            f"{summary.frames} frames, {summary.events} events, {summary.gaps} gaps",
        )
        return


if __name__ == "__main__":
    main()
