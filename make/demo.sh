#!/usr/bin/env bash
# A few throwaway containers with traffic between them, and weir watching:
# a web server, its database, and a visitor who now and then knocks at a closed
# door. All of it goes when weir ends (Ctrl-C).
#   demo.sh WEIR [flags of weir observe]
# Containers are made in the Docker engine that runs; if none runs but one is
# installed, in an engine of the demo's own, inside a network namespace; without
# any (or with WEIR_DEMO_WITHOUT_ENGINE=1), network namespaces play the containers.
# What is there already is not touched.
set -euo pipefail

weir=$(realpath "$1")
shift
[ "$(id -u)" -eq 0 ] || { echo "weir: the demo needs root: use make demo, or sudo" >&2; exit 3; }
export PATH=$PATH:/usr/sbin:/sbin
busybox=$(PATH=/bin:/usr/bin command -v busybox)
folder=$(mktemp -d "${TMPDIR:-/tmp}/weir-demo.XXXXXX")
socket=/var/run/docker.sock
host=    # the network namespace that plays the host; empty: the machine's own
image=   # set where it was made
made=()  # containers, or network namespaces, in the order of their making
engine=() # process ids of our own engine

# What runs in each container. They get each other's addresses in $DB and $WEB,
# and expand them themselves.
# shellcheck disable=SC2016
{
# A question of one line, an answer of a few kilobytes:
db='exec nc -ll -p 3306 -e sh -c "read question; seq 1 1500"'
web='httpd -p 80 -h "$WWW"
while :; do echo "select * from orders" | nc -w 2 "$DB" 3306 >/dev/null; sleep 2; done'
visitor='while :; do
	for page in small medium large; do wget -q -O /dev/null "http://$WEB/$page"; sleep 1; done
	nc -w 2 "$WEB" 8080 </dev/null
	sleep 1
	ping -q -c 2 "$WEB" >/dev/null
done'
}

cleanup() {
	trap '' INT TERM HUP
	set +e
	if [ -n "$image" ]; then
		[ ${#made[@]} -eq 0 ] || docker_ rm --force --volumes "${made[@]}" >/dev/null
		docker_ rmi "$image" >/dev/null
	fi
	stop_engine
	if [ -z "$image" ]; then
		for name in "${made[@]}"; do
			remove_namespace "$name"
		done
	fi
	[ -z "$host" ] || remove_namespace "$host"
	rm -rf "$folder"
}

make_namespace() {
	ip netns add "$1"
	ip -n "$1" link set lo up
}

# The namespace is ours alone, and so is what runs in it.
remove_namespace() {
	local processes
	processes=$(ip netns pids "$1")
	# shellcheck disable=SC2086
	[ -z "$processes" ] || kill -KILL $processes
	ip netns del "$1"
}

docker_() {
	docker --host "unix://$socket" "$@"
}

# Names that nobody uses here: shop, or shop2 ...
free_name() { # a command that says whether a name is taken
	local name=shop number=2
	while "$1" "$name"; do
		name=shop$number
		number=$((number + 1))
	done
	echo "$name"
}

wait_for() { # what, a command
	local deadline=$((SECONDS + 30))
	until "${@:2}" >/dev/null 2>&1; do
		[ $SECONDS -lt $deadline ] || { echo "weir: $1 does not answer; see $folder" >&2; return 1; }
		sleep 0.1
	done
}

# --- containers of Docker

project_is_taken() {
	[ -n "$(docker_ ps --all --quiet --filter "label=com.docker.compose.project=$1")" ]
}

start_engine() {
	echo "weir: no Docker engine runs here; starting one for the demo, in a network namespace of its own" >&2
	make_namespace weir-demo
	host='weir-demo'
	socket=$folder/docker.sock
	cat >"$folder/containerd.toml" <<-TOML
		version = 2
		root = "$folder/containerd"
		state = "$folder/containerd-state"
		disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
		[grpc]
		address = "$folder/containerd.sock"
	TOML
	# Sessions of their own: Ctrl-C is for weir, they end when the demo has cleaned up.
	setsid nsenter --net=/run/netns/$host containerd --config "$folder/containerd.toml" >"$folder/containerd.log" 2>&1 &
	engine+=($!)
	wait_for containerd test -S "$folder/containerd.sock"
	setsid nsenter --net=/run/netns/$host dockerd --host "unix://$socket" --containerd "$folder/containerd.sock" \
		--data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/pid" >"$folder/dockerd.log" 2>&1 &
	engine+=($!)
	wait_for dockerd docker_ version
}

stop_engine() {
	local index
	# dockerd before its containerd.
	for ((index = ${#engine[@]} - 1; index >= 0; index--)); do
		kill -TERM "${engine[index]}"
		wait "${engine[index]}"
	done
	[ ${#engine[@]} -eq 0 ] || awk -v folder="$folder/" 'index($5, folder) == 1 { print $5 }' /proc/self/mountinfo |
		sort -r | xargs -r umount --lazy
}

import_image() {
	local applet root=$folder/image name=weir-demo:$$
	mkdir -p "$root/bin" "$root/tmp"
	cp "$busybox" "$root/bin/busybox"
	for applet in $("$busybox" --list); do
		[ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
	done
	cp -r "$folder/www" "$root/www"
	tar -C "$root" -c . | docker_ import - "$name" >/dev/null
	image=$name
}

run_container() { # service, script, further arguments of docker run
	local id
	id=$(docker_ run --detach --init --name "$project-$1-1" --env WWW=/www \
		--label "com.docker.compose.project=$project" --label "com.docker.compose.service=$1" \
		--label com.docker.compose.container-number=1 "${@:3}" "$image" sh -c "$2")
	made+=("$id")
	address=$(docker_ inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$id")
}

make_containers() {
	import_image
	project=$(free_name project_is_taken)
	run_container db "$db"
	run_container web "$web" --env "DB=$address"
	run_container visitor "$visitor" --env "WEB=$address"
}

# --- network namespaces in the place of containers

namespace_is_taken() {
	compgen -G "/run/netns/$1-*" >/dev/null
}

run_namespace() { # service, number, script, VARIABLE=value
	local name=$project-$1
	make_namespace "$name"
	made+=("$name")
	ip -n $host link add "veth-$1" type veth peer name eth0 netns "$name"
	ip -n $host link set "veth-$1" master br0 up
	ip -n "$name" address add "10.77.0.$2/24" dev eth0
	ip -n "$name" link set eth0 up
	env "WWW=$folder/www" "${@:4}" PATH="$folder/bin" \
		"$busybox" nsenter --net="/run/netns/$name" "$busybox" sh -c "$3" </dev/null >/dev/null 2>&1 &
	disown # its end is no news
}

make_namespaces() {
	local applet
	echo "weir: no Docker engine here: network namespaces play the containers" >&2
	make_namespace weir-demo
	host='weir-demo'
	ip -n $host link add br0 type bridge
	ip -n $host address add 10.77.0.1/24 dev br0
	ip -n $host link set br0 up
	mkdir "$folder/bin"
	for applet in $("$busybox" --list); do
		ln -s "$busybox" "$folder/bin/$applet"
	done
	project=$(free_name namespace_is_taken)
	run_namespace db 2 "$db"
	run_namespace web 3 "$web" DB=10.77.0.2
	run_namespace visitor 4 "$visitor" WEB=10.77.0.3
}

# --- the demo

[ ! -e /run/netns/weir-demo ] || {
	echo "weir: a demo runs already, or was killed: if so, remove it with  ip netns del weir-demo" >&2
	exit 1
}
trap cleanup EXIT
# weir gets these too and ends, and then the demo does.
trap : INT TERM HUP
mkdir "$folder/www"
for page in small:300 medium:20000 large:1500000; do
	head -c "${page#*:}" /dev/zero | tr '\0' x >"$folder/www/${page%:*}"
done

arguments=(observe)
if [ "${WEIR_DEMO_WITHOUT_ENGINE-}" = 1 ]; then
	make_namespaces
	arguments+=(--engine none)
elif [ -S $socket ] && docker_ version >/dev/null 2>&1; then
	make_containers
	# Others may live here too.
	arguments+=(--service "$project/*")
elif command -v dockerd >/dev/null && command -v containerd >/dev/null && command -v docker >/dev/null; then
	start_engine
	make_containers
	arguments+=(--engine "$socket")
else
	make_namespaces
	arguments+=(--engine none)
fi

if [ -n "$host" ]; then
	nsenter --net="/run/netns/$host" "$weir" "${arguments[@]}" "$@"
else
	"$weir" "${arguments[@]}" "$@"
fi
