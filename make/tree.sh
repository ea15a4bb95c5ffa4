#!/usr/bin/env bash
# What may not be committed: compiled files, what is true of one machine only,
# and pages that lead nowhere.
set -euo pipefail
cd "$(dirname "$0")/.."
status=0

complain() { # what is wrong, the lines that show it
	echo "weir: $1:" >&2
	printf '%s\n' "$2" | sed 's/^/  /' >&2
	status=1
}

# The brackets keep this file from finding itself.
paths=$(git grep -nIE '(^|[^[:alnum:]_.-])/([w]ork|[h]ome/[[:alnum:]]|[r]oot/\.|[U]sers/)' -- . || true)
[ -z "$paths" ] || complain "paths of one machine are committed" "$paths"

objects=$(git ls-files -- '*.o' '*.a' '*.so' '*.so.*' '*.rlib' '*.ko' '*.class' '*.pyc' '*.skel.rs')
[ -z "$objects" ] || complain "compiled files are committed" "$objects"
elf=$(git ls-files -z | LC_ALL=C xargs -0r grep -lPa '^\x7fELF' 2>/dev/null || true)
[ -z "$elf" ] || complain "ELF files are committed" "$elf"

sources=$(sed -n 's/^source = "\(.*\)"/\1/p' Cargo.lock |
	grep -vFx 'registry+https://github.com/rust-lang/crates.io-index' | sort -u || true)
[ -z "$sources" ] || complain "Cargo.lock names sources other than crates.io" "$sources"

unlicensed=$(git ls-files -- 'bpf/*.c' 'bpf/*.h' |
	xargs -r grep -L 'SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause' || true)
[ -z "$unlicensed" ] || complain "files of the kernel side without their licence line" "$unlicensed"

broken=$(git ls-files -- '*.md' | while read -r page; do
	{ grep -oE '\]\([^):#]+[)#]' "$page" || true; } | sed 's/^](//; s/.$//' | while read -r target; do
		[ -e "$(dirname "$page")/$target" ] || echo "$page: $target"
	done
done)
[ -z "$broken" ] || complain "pages link to files that do not exist" "$broken"

exit "$status"
