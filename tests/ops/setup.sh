#!/usr/bin/env bash
# Installs what the operations tests run, below target/ops: a virtual environment with tools from wheels,
# and Prometheus from Debian's package (unpacked, so that no service starts). Nothing outside is changed.
set -euo pipefail
cd "$(dirname "$0")/../.."

tools=${OPS_TOOLS:-target/ops}
wanted=$(cat tests/ops/requirements.txt examples/python/requirements.txt tests/ops/setup.sh | sha256sum)
if [ "$(cat "$tools/installed" 2>/dev/null)" = "$wanted" ]; then exit 0; fi

echo "setup: tools of the operations tests to $tools"
rm -rf "$tools"
mkdir -p "$tools"
if ! python3 -c 'import ensurepip, venv' 2>/dev/null && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
fi
python3 -m venv "$tools/venv" || {
  echo "setup: python3 with its venv module is needed (Debian and Ubuntu: python3-venv)" >&2
  exit 1
}
"$tools/venv/bin/pip" install --quiet --disable-pip-version-check \
  -r tests/ops/requirements.txt -r examples/python/requirements.txt

command -v apt-get >/dev/null || {
  echo "setup: this is not Debian or Ubuntu; put prometheus and promtool into $tools/prometheus/usr/bin and" \
    "write the line below to $tools/installed" >&2
  echo "$wanted" >&2
  exit 1
}
fetch() { (cd "$tools" && apt-get download -qq prometheus 2>/dev/null); }
if ! fetch; then
  # The list of packages is missing or old.
  if [ "$(id -u)" -eq 0 ]; then apt-get update -qq; else sudo apt-get update -qq; fi
  fetch
fi
dpkg -x "$tools"/prometheus_*.deb "$tools/prometheus"
rm "$tools"/prometheus_*.deb
"$tools/prometheus/usr/bin/promtool" --version 2>&1 | head -1
echo "$wanted" >"$tools/installed"
