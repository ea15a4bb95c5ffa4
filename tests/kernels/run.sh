#!/usr/bin/env bash
# Runs some of the tests on other kernels than this machine's: boots each in QEMU
# (emulated, so neither KVM nor root is needed). selection.txt says which tests.
#   run.sh [RELEASE...]      default: bullseye (5.10) bookworm (6.1) trixie (6.12)
# Each machine is an initramfs: busybox, a few host tools, the test programs as
# cargo built them, and the libraries they are linked with. Kernels and console
# logs stay in target/kernels. A kernel that cannot be had is left out, loudly;
# without any, the run fails.
set -euo pipefail
cd "$(dirname "$0")/../.."

releases=("$@")
[ ${#releases[@]} -gt 0 ] || releases=(bullseye bookworm trixie)
tools=(ip tc nsenter setpriv bpftool ping ethtool socat)
# One takes some 270 seconds of a processor, which a busy machine does not have at once.
timeout_s=${WEIR_KERNELS_TIMEOUT_S:-1200}
here=tests/kernels
selection=${WEIR_KERNELS_SELECTION:-$here/selection.txt}
store=$(realpath -m "${CARGO_TARGET_DIR:-target}")/kernels
mkdir -p "$store"

fail() {
	echo "weir: $*: NO KERNEL WAS TRIED." >&2
	exit 1
}

[ "$(uname -m)" = x86_64 ] || fail "other kernels are tested on x86_64 only, this is $(uname -m)"

# What of cargo's build goes along, one line a program: package, its folder, what
# it is, its name, its path.
programs() {
	cargo test --locked --no-run --message-format=json-render-diagnostics |
		jq -r 'select(.reason == "compiler-artifact" and .executable != null)
			| (.manifest_path | rtrimstr("/Cargo.toml")) as $folder
			| [($folder | sub(".*/"; "")), $folder, (if .profile.test then "test" else "bin" end),
				.target.name, .executable] | join(" ")'
}

# Into the image, at the path that it has here: a program and its libraries.
add_program() {
	local file
	for file in "$1" $(ldd "$1" | grep -o '/[^ ]*'); do
		[ ! -e "$image$file" ] || continue
		mkdir -p "$image$(dirname "$file")"
		strip --strip-debug -o "$image$file" "$file" 2>/dev/null || cp -L "$file" "$image$file"
	done
}

# What all kernels have in common: $store/common.cpio.
make_image() {
	local applet tool crate name folder program filter filters
	image=$(mktemp -d "$store/image.XXXXXX")
	trap 'rm -rf "$image"' EXIT
	mkdir -p "$image"/{bin,busybox,dev,proc,run,sys,tmp,etc,var}
	ln -s /run "$image/var/run"
	cp "$(PATH=/bin:/usr/bin command -v busybox)" "$image/busybox/busybox"
	for applet in $("$image/busybox/busybox" --list); do
		[ "$applet" = busybox ] || ln -s busybox "$image/busybox/$applet"
	done
	ln -s /busybox/sh "$image/bin/sh"
	echo '127.0.0.1 localhost' >"$image/etc/hosts"
	echo 'root:x:0:0::/tmp:/bin/sh' >"$image/etc/passwd"
	for tool in "${tools[@]}"; do
		add_program "$(PATH=$PATH:/usr/sbin:/sbin command -v "$tool")"
	done
	install -m 755 "$here/init.sh" "$image/init"

	programs >"$image/programs"
	while read -r folder program; do
		mkdir -p "$image$folder"
		add_program "$program"
	done < <(awk '$3 == "bin" { print $2, $5 }' "$image/programs")
	while read -r crate name filters; do
		read -r folder program < <(awk -v crate="$crate" -v name="$name" \
			'$1 == crate && $3 == "test" && $4 == name { print $2, $5 }' "$image/programs") ||
			fail "cargo built no test program '$name' in crates/$crate"
		for filter in $filters; do
			# Not grep -q, which would end the program before it has said all.
			"$program" --list "$filter" | grep ': test$' >/dev/null ||
				fail "no test in crates/$crate, $name, is called '$filter'"
		done
		mkdir -p "$image$folder"
		add_program "$program"
		echo "$crate/$name $folder $program $filters" >>"$image/tests"
	done < <(grep -v '^#' "$selection")
	(cd "$image" && find . | cpio --quiet -R 0:0 -o -H newc) >"$store/common.cpio"
	rm -rf "$image"
}

boot() { # release
	local folder=$store/$1
	cat "$store/common.cpio" "$folder/modules.cpio" >"$folder/initramfs"
	# No old log may stand for a machine that did not start.
	: >"$folder/console"
	# no_timer_check: on a busy host the emulated timer ticks too late for the kernel's
	# test of it, which then panics. Without mitigations and deep page tables it is faster.
	timeout --foreground "$timeout_s" qemu-system-x86_64 -machine q35 -accel tcg -cpu max,la57=off -smp 2 \
		-m 1024 -nodefaults -display none -no-reboot -serial "file:$folder/console" -kernel "$folder/vmlinuz" \
		-initrd "$folder/initramfs" -append "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off"
}

# Says how it went: 0 when tests ran, all of them to a good end.
report() { # release, status of QEMU, seconds
	local folder=$store/$1 log passed failed ran why=
	log=$folder/console.log
	tr -d '\r' <"$folder/console" >"$log"
	read -r passed failed < <(awk '/^test result:/ { passed += $4; failed += $6 }
		END { print passed + 0, failed + 0 }' "$log")
	ran=$(sed -n 's/^@done //p' "$log")
	if [ "$2" -eq 124 ]; then
		why="not done after $timeout_s s"
	elif [ -z "$ran" ]; then
		why="the machine ended before the tests did"
	elif [ "$failed" -gt 0 ]; then
		why="$failed failed"
	elif grep -q '^@end .* [1-9][0-9]*$' "$log"; then
		why="a test program ended badly"
	elif [ "$ran" -eq 0 ]; then
		why="no test ran"
	fi
	if [ -n "$why" ]; then
		tail -n 100 "$log" | cut -c 1-300
		echo "weir: kernel $(cat "$folder/version"): FAIL: $why ($passed tests passed, $3 s). All of it: $log"
		return 1
	fi
	grep -o '^@missing .*' "$log" || true
	echo "weir: kernel $(cat "$folder/version"): PASS: $passed tests, $3 s"
}

run_one() { # release
	local began=$SECONDS status=0
	boot "$1" || status=$?
	report "$1" "$status" $((SECONDS - began))
}

make_image
tried=0 status=0
for release in "${releases[@]}"; do
	"$here/fetch.sh" "$release" "$store/$release" || continue
	tried=$((tried + 1))
	# An emulated processor is late for everything on a busy host. What a kernel really
	# fails, it fails twice.
	run_one "$release" && continue
	echo "weir: AGAIN, to tell a failure from a slow machine" >&2
	run_one "$release" || status=1
done
if [ "$tried" -eq 0 ]; then
	echo "weir: NO KERNEL COULD BE HAD: nothing was tried." >&2
	exit 1
fi
[ "$tried" -eq ${#releases[@]} ] || echo "weir: only $tried of ${#releases[@]} kernels were tried." >&2
exit "$status"
