"""What the examples share: stubs made from the protos, connections, and when to try again."""

import argparse
import datetime
import importlib
import ipaddress
import os
import pathlib
import random
import socket
import sys
import tempfile

import grpc

HERE = pathlib.Path(__file__).resolve().parent
PROTOS = pathlib.Path(os.environ.get("HEADHUNT_PROTOS", HERE.parents[1] / "proto"))
STUBS = HERE / "generated"

# These say that asking again would give the same answer. Everything else may pass: a server that
# drains or died (UNAVAILABLE, or INTERNAL from a balancer that lost it in the middle of a stream),
# one that is full (RESOURCE_EXHAUSTED, see is_final).
FINAL = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.OUT_OF_RANGE,
}

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0


def stubs():
    """The generated modules (detection_pb2, detection_pb2_grpc); makes them where protos are newer."""
    protos = sorted((PROTOS / "headhunt" / "v1").glob("*.proto"))
    if not protos:
        sys.exit(f"no protos below {PROTOS}: set HEADHUNT_PROTOS to the repository's proto folder")
    made = STUBS / "headhunt" / "v1" / "detection_pb2_grpc.py"
    if not made.exists() or made.stat().st_mtime < max(p.stat().st_mtime for p in protos):
        generate(protos)
    sys.path.insert(0, str(STUBS))
    return (
        importlib.import_module("headhunt.v1.detection_pb2"),
        importlib.import_module("headhunt.v1.detection_pb2_grpc"),
    )


def generate(protos):
    import grpc_tools
    from grpc_tools import protoc

    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    # Made beside, then renamed one by one: two examples may start at the same time.
    with tempfile.TemporaryDirectory(dir=HERE) as beside:
        failed = protoc.main(
            ["protoc", f"-I{PROTOS}", f"-I{well_known}"]
            + [f"--python_out={beside}", f"--grpc_python_out={beside}"]
            + [str(p) for p in protos]
        )
        if failed:
            sys.exit("protoc could not read the protos")
        for file in sorted(pathlib.Path(beside).rglob("*.py")):
            place = STUBS / file.relative_to(beside)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, place)


def arguments(description):
    """A parser with the options that every example has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--server",
        action="append",
        metavar="HOST:PORT",
        help="address of a server or of the balancer before several; give it more than once to have "
        "others to go to (default 127.0.0.1:50051)",
    )
    parser.add_argument("--ca", metavar="FILE", help="TLS: PEM of the authority that signed the server")
    parser.add_argument("--cert", metavar="FILE", help="mutual TLS: PEM of the client's certificate")
    parser.add_argument("--key", metavar="FILE", help="mutual TLS: PEM of the client's key")
    parser.add_argument("--token-file", metavar="FILE", help="file that holds the bearer token; needs --ca")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    return parser


class Servers:
    """Channels to one or more servers; `next()` goes round them."""

    def __init__(self, args):
        self.addresses = args.server or ["127.0.0.1:50051"]
        self.args = args
        if args.token_file and not args.ca:
            sys.exit("--token-file needs --ca: a token is not sent in the clear")
        self.at = -1

    def next(self):
        self.at = (self.at + 1) % len(self.addresses)
        return self.addresses[self.at], self.channel(self.addresses[self.at])

    def channel(self, address, name=None):
        """A channel to an address; `name`: the host that its certificate must be for, if another."""
        options = [("grpc.ssl_target_name_override", name)] if name else []
        options += [
            # A host that vanishes without a word is found out within half a minute.
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            # These examples wait by themselves, so that they can say what was lost.
            ("grpc.enable_retries", 0),
            # A channel of its own: another one's back-off would hold this one up.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if not self.args.ca:
            return grpc.insecure_channel(address, options)
        read = lambda name: pathlib.Path(name).read_bytes() if name else None
        credentials = grpc.ssl_channel_credentials(
            read(self.args.ca), read(self.args.key), read(self.args.cert)
        )
        if self.args.token_file:
            token = pathlib.Path(self.args.token_file).read_text().strip()
            credentials = grpc.composite_channel_credentials(
                credentials, grpc.access_token_call_credentials(token)
            )
        return grpc.secure_channel(address, credentials, options)


def every_address(server):
    """(HOST:PORT, name of its certificate) of each address behind a name: every replica's, with a
    headless service."""
    host, _, port = server.rpartition(":")
    try:
        ipaddress.ip_address(host.strip("[]"))
        return [(server, None)]
    except ValueError:
        pass
    found = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    seen = dict.fromkeys(entry[4][0] for entry in found)
    return [(f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}", host) for ip in seen]


def wait_after(tries):
    """Seconds to wait after so many failures in a row: half a second, doubled up to half a minute, and
    less by chance, so that the many clients of a server that is gone do not come together."""
    return min(FIRST_WAIT_S * 2 ** max(tries - 1, 0), LONGEST_WAIT_S) * random.uniform(0.5, 1.0)


def is_final(error):
    """Whether asking again would give the same answer. A server that is full says with google.rpc.RetryInfo
    that it may have room later; RESOURCE_EXHAUSTED with details but without it means: too much at once."""
    if error.code() in FINAL:
        return True
    if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
        return False
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    return details is not None and b"google.rpc.RetryInfo" not in details


def why(error):
    """A status in one line."""
    return f"{error.code().name}: {error.details()}"


def seconds(duration):
    return duration.seconds + duration.nanos * 1e-9


def clock(unix):
    """Wall time of a Unix time, UTC."""
    return datetime.datetime.fromtimestamp(unix, datetime.timezone.utc).strftime("%H:%M:%S.%f")[:-3] + "Z"
