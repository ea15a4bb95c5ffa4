#!/usr/bin/env bash
# Copies the object that `cargo build` compiled into weir to target/bpf/, for
# those who want to load it by hand (docs/by-hand.md).
set -euo pipefail
cd "$(dirname "$0")/.."

out_dir=$(cargo build --locked -p weir-kernel --message-format=json-render-diagnostics |
	sed -n 's/.*"reason":"build-script-executed".*crates\/kernel.*"out_dir":"\([^"]*\)".*/\1/p')
[ -n "$out_dir" ] || { echo "weir: cargo did not say where it built the kernel side" >&2; exit 1; }
target=${CARGO_TARGET_DIR:-target}/bpf
mkdir -p "$target"
cp "$out_dir/veth.bpf.o" "$target/veth.bpf.o"
echo "$target/veth.bpf.o"
