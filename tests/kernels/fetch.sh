#!/usr/bin/env bash
# Gets the cloud kernel of one Debian release, with the modules that the tests
# need. A folder that has one is left as it is: remove it to get a newer build.
#   fetch.sh RELEASE FOLDER       such as: fetch.sh bookworm target/kernels/bookworm
# The kernel comes by apt from the mirror that this machine uses already (or from
# DEBIAN_SECURITY_URI), is verified with Debian's keys, and does not touch the
# machine's own package lists. It is found through its meta package, because
# older builds leave the mirror.
# Leaves in FOLDER: vmlinuz; modules.cpio; version, which `uname -r` will say.
set -euo pipefail

release=$1
folder=$(realpath -m "$2")
keys=/usr/share/keyrings/debian-archive-keyring.gpg
meta=linux-image-cloud-amd64
modules=(veth bridge sch_ingress cls_bpf act_bpf sctp 8021q tun wireguard)

fail() {
	echo "weir: NO KERNEL OF $release: $*" >&2
	exit 1
}

[ ! -e "$folder/version" ] || exit 0
[ -e "$keys" ] || fail "there is no $keys (Debian package debian-archive-keyring)"

# shellcheck disable=SC2016
mirror=${DEBIAN_SECURITY_URI:-$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(ORIGIN)' |
	awk '$2 ~ /-security$/ && ($3 == "" || $3 == "Debian") { uri = $1 } END { print uri }')}
[ -n "$mirror" ] || fail "apt's sources here have no Debian security suite;" \
	"set DEBIAN_SECURITY_URI to a mirror of Debian's security archive"

mkdir -p "$(dirname "$folder")"
work=$(mktemp -d "$folder.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,cache/archives/partial,deb,root,kernel}
echo "deb [arch=amd64 signed-by=$keys] $mirror $release-security main" >"$work/sources.list"
apt=(-o "Dir::State::Lists=$work/lists" -o Dir::State::Status=/dev/null -o "Dir::Cache=$work/cache"
	-o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
	-o Dir::Etc::PreferencesParts=/dev/null -o APT::Architecture=amd64 -o Acquire::Languages=none
	-o Acquire::Retries=3 -o APT::Update::Error-Mode=any)
# As root apt would drop to a user who may not write here.
[ "$(id -u)" -ne 0 ] || apt+=(-o APT::Sandbox::User=root)

apt-get "${apt[@]}" update >"$work/log" 2>&1 || fail "$(tail -n 3 "$work/log")"
package=$(apt-cache "${apt[@]}" depends --important "$meta" | awk '$1 == "Depends:" { print $2; exit }')
[ -n "$package" ] || fail "$release-security has no $meta"
(cd "$work/deb" && apt-get "${apt[@]}" download "$package") >"$work/log" 2>&1 || fail "$(tail -n 3 "$work/log")"
dpkg-deb -x "$work"/deb/*.deb "$work/root"

version=$(basename "$work"/root/boot/vmlinuz-*)
version=${version#vmlinuz-}
# Newer packages keep their modules under /usr, compressed.
tree=$work/root
[ -d "$tree/lib/modules" ] || tree=$work/root/usr
find "$tree/lib/modules" -name '*.ko.xz' -exec xz -d {} +
busybox depmod -b "$tree" "$version"

cd "$tree"
printf '%s\n' "${modules[@]}" >modules
names=$(IFS='|' && echo "${modules[*]}")
{
	echo modules
	echo "lib/modules/$version/modules.dep"
	sed -nE "/\/($names)\.ko:/s/://p" "lib/modules/$version/modules.dep" | tr ' ' '\n' | sort -u |
		sed -n "s|^kernel|lib/modules/$version/kernel|p"
} >"$work/files"
# Every folder on the way to a file, then the files.
{
	sed 's|/[^/]*$||' "$work/files" | awk -F/ '/\// { path = $1; print path
		for (i = 2; i <= NF; i++) { path = path "/" $i; print path } }' | sort -u
	cat "$work/files"
} | cpio --quiet -R 0:0 -o -H newc >"$work/kernel/modules.cpio"
cp "$work/root/boot/vmlinuz-$version" "$work/kernel/vmlinuz"
echo "$version" >"$work/kernel/version"
cd /

rm -rf "${folder:?}"
mv "$work/kernel" "$folder"
