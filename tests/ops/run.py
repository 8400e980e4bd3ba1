#!/usr/bin/env python3
"""Runs the operations tests, all or those that are named: protos, packages, metrics, clients, fleet."""

import importlib
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import common

PARTS = ["protos", "packages", "metrics", "clients", "fleet"]


def main():
    wanted = sys.argv[1:] or PARTS
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        sys.exit(f"there is no part {', '.join(unknown)}: {', '.join(PARTS)}")
    if not common.BIN.exists():
        sys.exit(f"no {common.BIN}: run make build, or set HEADHUNT_BIN")
    began, failed = time.monotonic(), 0
    with common.site() as site:
        for name in wanted:
            print(name, flush=True)
            at = time.monotonic()
            try:
                importlib.import_module(name).main(site)
            except Exception as error:
                failed += 1
                kind = "" if isinstance(error, common.Failed) else f"{type(error).__name__}: "
                print(f"  FAILED: {kind}{error}", flush=True)
            print(f"  {name}: {time.monotonic() - at:.0f} s", flush=True)
    print(f"{len(wanted) - failed} passed, {failed} failed", flush=True)
    print(f"({time.monotonic() - began:.0f} s)", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
