#!/usr/bin/env bash
# Installs by apt what a step needs and this machine does not have.
#   packages.sh SET...        sets: build test fuzz kernels bench demo lint
# Nothing is installed when everything is there. Run it as yourself: it calls
# sudo for apt alone.
set -euo pipefail
cd "$(dirname "$0")/.."

# set, package, what proves that it is there, why.
# A proof is a command, a /file, or "package" (no file of its own would tell).
# Packages of other names on other releases: first|second, the first that apt knows.
table() {
	cat <<'TABLE'
build    gcc              cc                            links Rust programs
build    libc6-dev        /usr/include/stdio.h          the C library's headers
build    make             make                          builds libbpf
build    pkg-config       pkg-config                    finds libelf and zlib
build    libelf-dev       /usr/include/libelf.h         libbpf reads BPF objects with it
build    zlib1g-dev       /usr/include/zlib.h           libelf reads compressed sections with it
build    clang            clang                         compiles the kernel side
lint     clang-format     clang-format                  checks the format of the kernel side
lint     git              git                           lists what is committed
test     iproute2         tc                            network namespaces, and other programs beside weir's
test     util-linux       nsenter                       runs clients and servers in namespaces
test     bpftool|linux-tools-common  bpftool            looks at programs and maps from outside
test     iputils-ping     ping                          ICMP traffic
test     ethtool          ethtool                       switches segmentation offload
test     nftables         nft                           a host's own rules, as Docker writes them
test     openssl          openssl                       SHA-256 of much
test     socat            socat                         TCP, UDP and SCTP clients and servers
test     tcpdump          tcpdump                       a second opinion on what was sent
test     iperf3           iperf3                        load
test     docker.io        dockerd                       an engine of the tests' own (the package starts one for the host too)
test     docker-cli|docker.io  docker                   its client
test     busybox-static   package                       the only file in the tests' container image
test     nginx-light      nginx                         servers whose requests weir must find
test     redis-server     redis-server                  likewise
test     postgresql       /usr/lib/postgresql           likewise
test     postgresql-client  psql                        asks PostgreSQL
test     mariadb-server   mariadbd                      likewise
test     mariadb-client   mariadb                       asks MariaDB
test     nghttp2-server   nghttpd                       an HTTP/2 server
test     nghttp2-client   h2load                        asks HTTP/2 servers
test     curl             curl                          asks HTTP servers
fuzz     g++              c++                           compiles libFuzzer
kernels  qemu-system-x86  qemu-system-x86_64            boots the kernels
kernels  busybox-static   package                       their user space
kernels  cpio             cpio                          packs it
kernels  xz-utils         xz                            unpacks kernel modules
kernels  jq               jq                            finds the test programs in cargo's output
kernels  debian-archive-keyring  /usr/share/keyrings/debian-archive-keyring.gpg  verifies the kernels
kernels  iproute2         tc                            goes into the test machine, as the following do
kernels  util-linux       nsenter                       runs clients and servers in namespaces
kernels  bpftool|linux-tools-common  bpftool            looks at programs and maps from outside
kernels  iputils-ping     ping                          ICMP traffic
kernels  ethtool          ethtool                       switches segmentation offload
kernels  socat            socat                         TCP, UDP and SCTP clients and servers
demo     iproute2         ip                            network namespaces
demo     busybox-static   package                       clients and servers
bench    iproute2         tc                            network namespaces
bench    util-linux       nsenter                       runs clients and servers in namespaces
bench    iperf3           iperf3                        streams and datagrams
bench    tcpdump          tcpdump                       what weir is compared with
bench    nginx-light      nginx                         a server under load
bench    wrk              wrk                           its load
bench    nftables         nft                           redirects that weir's are compared with
bench    iptables         iptables-nft                  redirects likewise, and the rules that Docker writes
bench    redis-server     redis-server                  a server under load (the package starts one for the host too)
bench    redis-tools      redis-benchmark               its load
bench    mariadb-server   mariadbd                      a server under load (the package starts one for the host too)
bench    mariadb-client   mariadb                       its counters
bench    sysbench         sysbench                      its load
bench    tshark           tshark                        what requests told one by one are compared with
TABLE
}

present() { # package, proof
	case $2 in
	package) [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null)" = "ii " ] ;;
	/*) [ -e "$2" ] ;;
	*) PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" command -v "$2" >/dev/null ;;
	esac
}

missing_packages=()
missing_reasons=()
gather() {
	local set package proof why
	while read -r set package proof why; do
		case " $* " in *" $set "*) ;; *) continue ;; esac
		case " ${missing_packages[*]-} " in *" $package "*) continue ;; esac
		present "$package" "$proof" && continue
		missing_packages+=("$package")
		missing_reasons+=("$(printf '  %-17s %s' "${package//|/ or }" "$why")")
	done < <(table)
}

# The first of the alternatives that apt can install.
choose() {
	local name policy
	for name in ${1//|/ }; do
		policy=$(apt-cache policy "$name" 2>/dev/null)
		if [[ $policy =~ Candidate:\ [^\(] ]]; then
			# On Ubuntu, bpftool is a script that looks for the one of the running kernel.
			[ "$name" != linux-tools-common ] || name="$name linux-tools-$(uname -r)"
			echo "$name"
			return
		fi
	done
	echo "weir: apt knows no package '${1//|/ or }'; enable the distribution's main (Ubuntu: universe) section" >&2
	return 1
}

install_missing() {
	local as_root=() package chosen packages=()
	echo "weir: installing by apt, because it is missing here:"
	printf '%s\n' "${missing_reasons[@]}"
	if ! command -v apt-get >/dev/null; then
		echo "weir: this machine has no apt-get: install these (or what they are called here), then try again" >&2
		return 1
	fi
	if [ "$(id -u)" -ne 0 ]; then
		if ! command -v sudo >/dev/null; then
			echo "weir: installing needs root, and there is no sudo: as root, run  make/packages.sh $*" >&2
			return 1
		fi
		as_root=(sudo)
	fi
	"${as_root[@]}" apt-get update -qq
	for package in "${missing_packages[@]}"; do
		chosen=$(choose "$package")
		read -ra chosen <<<"$chosen"
		packages+=("${chosen[@]}")
	done
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends "${packages[@]}"
}

check_rust() {
	local wanted found
	wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
	if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
		echo "weir: Rust is missing (cargo is not on the PATH)." >&2
		if [ -n "${SUDO_USER-}" ]; then
			echo "  You called this through sudo: try it without, weir asks for root where it needs it." >&2
		fi
	else
		found=$(rustc --version | cut -d' ' -f2)
		[ "$(printf '%s\n' "$wanted" "${found%%-*}" | sort -V | head -1)" != "$wanted" ] || return 0
		echo "weir: Rust $found is too old, weir needs $wanted or newer." >&2
	fi
	echo "  Get it from https://rustup.rs, or, where rustup is installed: rustup update stable" >&2
	return 1
}

[ $# -gt 0 ] || { echo "usage: make/packages.sh build|test|kernels|bench|demo|lint ..." >&2; exit 2; }
gather "$@"
[ ${#missing_packages[@]} -eq 0 ] || install_missing "$@"
case " $* " in *" build "*) check_rust ;; esac
