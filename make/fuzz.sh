#!/usr/bin/env bash
# Runs fuzz targets for a while each, with the stable compiler: coverage guides
# libFuzzer as with cargo-fuzz; no sanitizer watches memory, of which code without
# `unsafe` has no need.
#   fuzz.sh [-s SECONDS] [TARGET...]      default: every target, 5 seconds each
# What is found new stays in fuzz/corpus, what fails in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=5
if [ "${1-}" = -s ]; then
	seconds=$2
	shift 2
fi
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
	for file in fuzz/targets/*.rs; do
		name=${file##*/}
		targets+=("${name%.rs}")
	done
fi

# As cargo-fuzz sets them. For the host by its name, or build scripts get them too.
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1"
target_dir=$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz
build=()
for name in "${targets[@]}"; do build+=(--bin "$name"); done
cargo build --locked --release --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "$target_dir" "${build[@]}"

status=0
for name in "${targets[@]}"; do
	mkdir -p "fuzz/corpus/$name" "fuzz/artifacts/$name"
	folders=("fuzz/corpus/$name")
	if [ "$name" = conversation ]; then
		folders+=(fuzz/seeds/*/)
	elif [ -d "fuzz/seeds/$name" ]; then
		folders+=("fuzz/seeds/$name")
	fi
	echo "== fuzz $name: $seconds s"
	log=$target_dir/$name.log
	if "$target_dir/$host/release/$name" -max_total_time="$seconds" -timeout=25 -rss_limit_mb=1024 -max_len=4096 \
		-print_final_stats=1 -artifact_prefix="fuzz/artifacts/$name/" "${folders[@]}" >"$log" 2>&1; then
		sed -n 's/^Done \([0-9]*\) runs.*/   \1 runs, nothing found/p' "$log"
	else
		tail -n 40 "$log" >&2
		echo "weir: fuzz target $name failed; the input is in fuzz/artifacts/$name/" >&2
		status=1
	fi
done
exit "$status"
