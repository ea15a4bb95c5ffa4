#!/usr/bin/env bash
# Every test of the workspace. Tests whose names begin with root_ need root:
# as root they just run; otherwise cargo builds as you and runs the test
# programs through sudo. Each of them that really runs adds its name to the
# file $WEIR_ROOT_TESTS_RAN, so that a run without any cannot look like success.
#   test.sh [arguments of cargo test]
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" -ne 0 ]; then
	if command -v sudo >/dev/null && { [ -t 0 ] && sudo -v || sudo -n true; } 2>/dev/null; then
		host=$(rustc -vV | sed -n 's/^host: //p')
		runner=CARGO_TARGET_$(echo "$host" | tr 'a-z-' 'A-Z_')_RUNNER
		export "$runner=sudo -E"
	else
		echo "weir: NOT ROOT, AND NO SUDO: the tests whose names begin with root_ will be skipped." >&2
	fi
fi

# Not in /tmp: the kernel keeps root from appending to somebody else's file there
# (fs.protected_regular).
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
mkdir -p "$target"
WEIR_ROOT_TESTS_RAN=$(mktemp "$target/root-tests-ran.XXXXXX")
export WEIR_ROOT_TESTS_RAN
trap 'rm -f "$WEIR_ROOT_TESTS_RAN"' EXIT

status=0
cargo test --locked --no-fail-fast "$@" || status=$?

ran=$(sort -u "$WEIR_ROOT_TESTS_RAN" | wc -l)
echo "weir: $ran root tests ran"
if [ "$ran" -eq 0 ]; then
	echo "weir: NO ROOT TEST RAN: nothing was tried against this machine's kernel." >&2
	[ "${CI-}" != true ] || exit 1
fi
exit "$status"
