"""Protos: lint with comments on everything, and no change that breaks clients of the last tag."""

import pathlib
import re
import shutil
import tempfile

import common
from common import check, run, say

BUF = common.VENV / "buf"


def lint():
    run(BUF, "lint", cwd=common.ROOT)
    fields = sum(
        len(re.findall(r"^\s+(?:repeated |optional )?[\w.]+ \w+ = \d+;", f.read_text(), re.M))
        for f in (common.ROOT / "proto").rglob("*.proto")
    )
    say(f"buf lint: {fields} fields, each with a comment")


def catches():
    """Both checks notice what they are there for."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        shutil.copytree(common.ROOT / "proto", folder / "proto")
        shutil.copy(common.ROOT / "buf.yaml", folder)
        file = folder / "proto/headhunt/v1/detection.proto"
        good = file.read_text()
        file.write_text(re.sub(r"\n\s*//[^\n]*\n(\s*string session_id = 1;)", r"\n\1", good, count=1))
        check(file.read_text() != good, "nothing was changed")
        done = run(BUF, "lint", cwd=folder, ok=False)
        check(done.returncode != 0 and "session_id" in done.stdout, f"a field without a comment passed: {done.stdout}")
        file.write_text(good.replace("double probability = 3;", "float probability = 3;"))
        check(file.read_text() != good, "nothing was changed")
        done = run(BUF, "breaking", "--against", str(common.ROOT), cwd=folder, ok=False)
        check(done.returncode != 0 and "probability" in done.stdout, f"a changed type passed: {done.stdout}")
    say("a missing comment and a changed type are noticed")


def breaking():
    done = run("git", "describe", "--tags", "--abbrev=0", cwd=common.ROOT, ok=False)
    if done.returncode != 0:
        say("SKIPPED: breaking changes against the last tag: there is no tag yet")
        return
    tag = done.stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        # As it was: the folder alone, whatever kind of checkout this is.
        archive = pathlib.Path(folder) / "proto.tar"
        run("git", "archive", "--output", archive, tag, "proto", "buf.yaml", cwd=common.ROOT)
        run(BUF, "breaking", "--against", f"{archive}", cwd=common.ROOT)
    say(f"nothing breaks clients that were built for {tag}")


def main(_):
    lint()
    catches()
    breaking()
