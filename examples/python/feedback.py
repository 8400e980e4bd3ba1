#!/usr/bin/env python3
"""Says whether an event was one, or that an interval was missed.

    feedback.py SESSION confirmed EVENT
    feedback.py SESSION false-alarm EVENT
    feedback.py SESSION missed START_S END_S

The server that watched has the features, so it is the one that must be told. Behind a balancer give the
name that stands for every replica (in the chart: the headless service): each address behind it is asked
until one knows the session.
"""

import json
import sys

import grpc

from client import Servers, arguments, every_address, stubs, why


def request(d, args):
    r = d.ReportFeedbackRequest(session_id=args.session)
    if args.verdict == "missed":
        if len(args.about) != 2:
            sys.exit("missed needs START_S and END_S, seconds of media time")
        r.verdict = d.FEEDBACK_VERDICT_MISSED_INTERVAL
        for name, text in zip(("start", "end"), args.about):
            getattr(r, name).FromMicroseconds(round(float(text) * 1e6))
        return r
    if len(args.about) != 1:
        sys.exit(f"{args.verdict} needs the event's id")
    r.verdict = {
        "confirmed": d.FEEDBACK_VERDICT_CONFIRMED,
        "false-alarm": d.FEEDBACK_VERDICT_FALSE_ALARM,
    }[args.verdict]
    r.event_id = args.about[0]
    return r


def main():
    parser = arguments(__doc__)
    parser.add_argument("session", help="session_id of `opened`")
    parser.add_argument("verdict", choices=["confirmed", "false-alarm", "missed"])
    parser.add_argument("about", nargs="+", help="the event's id, or START_S END_S")
    args = parser.parse_args()
    d, services = stubs()
    servers = Servers(args)
    said = request(d, args)
    refused = []
    for address, name in [a for server in servers.addresses for a in every_address(server)]:
        with servers.channel(address, name) as channel:
            try:
                answer = services.DetectionServiceStub(channel).ReportFeedback(said, timeout=30)
            except grpc.RpcError as error:
                refused.append(f"{address}: {why(error)}")
                if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE):
                    continue
                break
        fields = {"stored": answer.segments_stored, "missing": answer.segments_missing}
        text = f"{fields['stored']} segments stored, {fields['missing']} were no longer there"
        print(json.dumps(fields) if args.json else text)
        return
    sys.exit("\n".join(refused))


if __name__ == "__main__":
    main()
