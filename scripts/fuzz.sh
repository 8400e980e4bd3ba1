#!/usr/bin/env bash
# Builds and runs fuzz targets: fuzz.sh SECONDS SANITIZER TARGET...
# Each begins with the kept inputs of tests/corpus. What it learns stays in fuzz/target/corpus, what it finds in
# fuzz/artifacts: copy that to tests/corpus/TARGET/found-NAME, fix it, and `make test` keeps it fixed.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=$1 sanitizer=$2
shift 2
cargo=${CARGO:-cargo}
# One input may take so long, seconds, and the process so much memory, MB.
timeout=25 memory=4096

# Containers also go through decoder processes, which a sanitizer does not fit into.
[ "$sanitizer" != none ] || export HEADHUNT_FUZZ_PROCESSES=1

targets=()
for target in "$@"; do
  [ -e "fuzz/targets/$target.rs" ] || { echo "no fuzz target $target" >&2; exit 2; }
  targets+=("$target")
done
failed=()
for target in "${targets[@]}"; do
  "$cargo" fuzz build -s "$sanitizer" "$target"
  learnt=fuzz/target/corpus/$target found=fuzz/artifacts/$target
  mkdir -p "$learnt" "$found"
  binary=$(ls -t fuzz/target/*/release/"$target" | head -n 1)
  echo "== $target, $seconds s"
  log=$found/last.log
  if "$binary" -max_total_time="$seconds" -timeout="$timeout" -rss_limit_mb="$memory" -max_len=65536 \
    -artifact_prefix="$found/" -print_final_stats=1 "$learnt" "tests/corpus/$target" >"$log" 2>&1; then
    grep -E '^stat::number_of_executed_units|^Done' "$log"
  else
    tail -n 40 "$log"
    failed+=("$target")
  fi
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "found something: ${failed[*]}; see fuzz/artifacts" >&2
  exit 1
fi
