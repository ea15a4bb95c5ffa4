#!/busybox/sh
# Process 1 of a test machine: makes a small Linux of an initramfs, runs what
# /tests lists, powers off. run.sh reads the lines that begin with @ from the console.
# A line of /tests: name, folder to run in, command with arguments.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/busybox
export HOME=/tmp TERM=dumb RUST_BACKTRACE=1 WEIR_ROOT_TESTS_RAN=/tmp/root-tests-ran

mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup /sys/fs/cgroup
# Not over /tmp: the programs may be there, where the repository is checked out under it.
mount -t tmpfs run /run
ln -s /proc/self/fd /dev/fd
ip link set lo up

echo "@kernel $(uname -r)"
while read -r module; do
	modprobe "$module" || echo "@missing $module"
done </modules

while read -r name folder command; do
	echo "@begin $name"
	# Words of a command have no spaces in them.
	# shellcheck disable=SC2086
	(cd "$folder" && exec $command) </dev/null 2>&1
	echo "@end $name $?"
done </tests
echo "@done $(sort -u /tmp/root-tests-ran | wc -l)"
poweroff -f
