"""The examples as a user runs them: Python, grpcurl (the README's commands), Rust."""

import os
import re
import signal
import sys
import time

import common
from common import Camera, Process, Server, check, eventually, run, say


def upload_that_moves(site):
    """The first server is killed while it has the upload; the second one gets it all, and no line comes
    twice."""
    with Server(site) as a, Server(site) as b:
        a.ready(), b.ready()
        long = site.folder / "long.mp4"
        common.encode(long, [("gradient", 400), ("snow", 200), ("gradient", 600)])
        with Process(
            sys.executable, common.EXAMPLES / "upload.py", "--json",
            "--server", a.address, "--server", b.address, long,
        ) as upload:
            upload.line('"frames"')
            a.signal(signal.SIGKILL)
            check(upload.wait(60) == 0, upload.text())
        lines = upload.json()
        check("again in" in upload.text(), f"the upload ended before its server was killed:\n{upload.text()}")
        frames = [line["frames"] for line in lines if isinstance(line.get("frames"), list)]
        ends = [0] + [last + 1 for _, last in frames]
        check([first for first, _ in frames] == ends[:-1], f"lines twice or missing: {frames}")
        summary = lines[-1]["summary"]
        check(summary["frames"] == ends[-1] == 1200, f"{summary}, {ends[-1]} frames told")
        starts = [line["event_started"] for line in lines if "event_started" in line]
        check(starts and len(starts) == len(set(starts)), f"events told: {starts}")
    say("python: an upload whose server is killed goes on at the next; each of 1200 frames is told once")


def grpcurl(site):
    readme = (common.ROOT / "examples/grpcurl/README.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", readme, re.S)
    check(len(blocks) >= 6, f"{len(blocks)} commands in the README")
    script = "set -eu\n" + "\necho ---\n".join(blocks)
    with Camera(site.clip) as camera, Server(
        site, feedback__dir=str(site.folder / "feedback-grpcurl"), admin__dir=str(site.folder / "admin-grpcurl")
    ) as server:
        server.ready()
        environment = {
            **os.environ, "SERVER": server.address, "CAMERA": camera.url, "VIDEO": str(site.clip),
            "PATH": f"{common.VENV}:{os.environ['PATH']}",
        }
        done = run("bash", "-c", script, cwd=site.folder, env=environment, timeout=120)
    for word in (
        "headhunt.v1.AdminService", '"status": "SERVING"', '"residentLayers"', '"frameScores"',
        '"eventStarted"', '"segmentsStored"', '"summary"', '"profiles"',
    ):
        check(word in done, f"grpcurl did not show {word}:\n{done[-3000:]}")
    say(f"grpcurl: the {len(blocks)} commands of its README work as written")


def rust(site):
    binary = common.BIN.parent / "examples/watch"
    if not binary.exists():
        say(f"SKIPPED: rust: no {binary}; cargo build --examples makes it (make unit does)")
        return
    with Camera(site.clip) as camera, Server(site) as server:
        server.ready()
        with Process(binary, f"http://{server.address}", camera.url) as watch:
            watch.line(r"p'=")
            server.signal(signal.SIGKILL)
            server.wait()
            watch.line("lost")
            with Server(site, port=server.port) as again:
                again.ready()
                eventually("another session", lambda: watch.text().count("session ") == 2)
                before = watch.text().count("p'=")
                eventually("scores of it", lambda: watch.text().count("p'=") > before)
    say("rust: goes on at a server that comes back")


def refusals(site):
    """What asking again cannot mend ends the examples at once, with the server's words."""
    with Server(site) as server:
        server.ready()
        began = time.monotonic()
        for command, words in (
            (["upload.py", "--profile", "none", site.clip], "NOT_FOUND"),
            (["watch.py", "ftp://cam/1"], "INVALID_ARGUMENT"),
            (["feedback.py", "0" * 32, "confirmed", "0"], "FAILED_PRECONDITION"),
        ):
            done = run(sys.executable, common.EXAMPLES / command[0], "--server", server.address, *command[1:], ok=False)
            check(done.returncode == 1 and words in done.stdout, f"{command}: {done.returncode}, {done.stdout}")
        check(time.monotonic() - began < 15, "they tried again")
        address = f"http://{server.address}"
        check(run(common.BIN, "health", "--addr", address).strip() == "serving", "headhunt health")
        done = run(common.BIN, "health", "--addr", address, "--service", "headhunt.v1.AdminService", ok=False)
        check(done.returncode == 0, done.stdout)
        done = run(common.BIN, "health", "--addr", address, "--service", "none", ok=False)
        check(done.returncode == 1 and "NotFound" in done.stdout, done.stdout)
        done = run(common.BIN, "health", "--addr", f"https://{server.address}", "--any-certificate", ok=False)
        check(done.returncode == 1 and "TLS" in done.stdout, done.stdout)
        server.signal(signal.SIGSTOP)
        began = time.monotonic()
        done = run(common.BIN, "health", "--addr", address, "--timeout-s", "1", ok=False)
        server.signal(signal.SIGCONT)
        check(done.returncode == 1 and time.monotonic() - began < 5, done.stdout)
    done = run(common.BIN, "health", "--addr", address, ok=False)
    check(done.returncode == 1, done.stdout)
    say("refused calls end the examples at once; headhunt health: 0 while it serves, 1 when it hangs or is gone")


def secured(site):
    """With TLS and tokens."""
    if "token_file" not in common.known_settings():
        say("SKIPPED: TLS and tokens: this binary has no server.token_file")
        return
    import trustme

    folder = site.folder / "secured"
    folder.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    identity = authority.issue_cert("127.0.0.1", "localhost")
    identity.private_key_pem.write_to_path(folder / "key.pem")
    for n, pem in enumerate(identity.cert_chain_pems):
        pem.write_to_path(folder / "cert.pem", append=n > 0)
    tokens = {}
    for name, role in (("caller", "detect"), ("scraper", "observe")):
        token = run(common.BIN, "token", "new", "--name", name, "--roles", role, "--append", folder / "tokens.toml")
        tokens[name] = token.strip().splitlines()[-1]
        (folder / name).write_text(tokens[name] + "\n")
    for file in folder.iterdir():
        file.chmod(0o600)
    with Server(
        site, ca=folder / "ca.pem", server__tls_cert_file=str(folder / "cert.pem"),
        server__tls_key_file=str(folder / "key.pem"), server__token_file=str(folder / "tokens.toml"),
    ) as server:
        server.ready()

        def upload(*options):
            return run(sys.executable, common.EXAMPLES / "upload.py", "--server", server.address,
                       "--ca", folder / "ca.pem", *options, site.clip, ok=False)

        done = upload("--token-file", folder / "caller")
        check(done.returncode == 0 and "160 frames" in done.stdout, done.stdout)
        done = upload()
        check(done.returncode == 1 and "UNAUTHENTICATED" in done.stdout, f"without a token: {done.stdout}")
        done = upload("--token-file", folder / "scraper")
        check(done.returncode == 1 and "PERMISSION_DENIED" in done.stdout, f"with another role: {done.stdout}")
        health = [common.BIN, "health", "--addr", f"https://{server.address}"]
        run(*health, "--any-certificate")
        run(*health, "--ca", folder / "ca.pem")
        check(run(*health, ok=False).returncode == 1, "a certificate of nobody's was believed")
        plain = run(common.BIN, "health", "--addr", f"http://{server.address}", ok=False)
        check(plain.returncode == 1, "a server with TLS answers without")
        check(server.page("/metrics")[0] == 401, "/metrics without a token")
        status, text = server.page("/metrics", tokens["scraper"])
        check(status == 200 and "headhunt_build_info" in text, f"/metrics with a token: {status}")
        check(server.page("/health")[0] == 200, "/health")
    say("TLS and tokens: examples, headhunt health, /metrics")


def main(site):
    refusals(site)
    secured(site)
    upload_that_moves(site)
    grpcurl(site)
    rust(site)
