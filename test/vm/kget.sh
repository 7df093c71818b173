#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# kget.sh - fetch a Debian kernel, or the programs that a guest needs, into the
# cache. Nothing is installed and the machine's own apt is not touched.
#
# usage: kget.sh ARCH KERNEL   KERNEL is SERIES or SERIES-cloud: 6.1-cloud, newest-cloud
#        kget.sh ARCH tools    busybox, ip, tc, iptables, losetup and mkfs.ext4 with all they need
#        kget.sh ARCH source 5.10   the unpacked Linux source package of a series
#
# result: $CACHE/ARCH/KERNEL/{version,vmlinuz,config,modroot/lib/modules/VERSION},
#         $CACHE/ARCH/tools/..., $CACHE/src/SERIES/...
# CACHE is $HUATUO_CACHE or ~/.cache/huatuo/kernels.
#
# exit status: 44 when the archive no longer has the kernel (its index does not
# list it, or every file answers 404), 1 for anything else.
set -euo pipefail

GONE=44
REFRESH_MINUTES=720 # how often the archive is asked for a newer build

arch=$1
what=$2
cache=${HUATUO_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/huatuo/kernels}
dir=$cache/$arch/$what
mkdir -p "$cache/$arch"
exec 9>"$cache/.lock"
flock 9 # several runs may share the cache

fresh() { [ -e "$1" ] && [ -z "$(find "$1" -mmin +$REFRESH_MINUTES)" ]; }

# An apt that knows only the suites in which kernels are found.
aptroot=$cache/apt-$arch
export APT_CONFIG=$aptroot/apt.conf
apt_setup() {
	local mirror key=/usr/share/keyrings/debian-archive-keyring.gpg s
	mirror=${MIRROR:-$(sed -n 's/^URIs: *//p;s/^deb  *\(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' \
		/etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | grep -m1 '/debian/\?$' || true)}
	mirror=${mirror:-http://deb.debian.org/debian}
	mkdir -p "$aptroot"/{etc/apt/preferences.d,etc/apt/apt.conf.d,var/lib/apt/lists/partial,var/cache/apt/archives/partial,var/lib/dpkg}
	: >"$aptroot/var/lib/dpkg/status"
	{
		for s in bullseye-security bookworm-security trixie-security; do
			echo "deb [signed-by=$key arch=$arch] ${mirror%/}-security $s main"
		done
		for s in bullseye bookworm trixie-backports; do
			echo "deb [signed-by=$key arch=$arch] $mirror $s main"
		done
	} >"$aptroot/etc/apt/sources.list"
	# Programs and their libraries come from one suite; a kernel is in one only.
	printf 'Package: *\nPin: release n=%s*\nPin-Priority: 50\n\n' bullseye trixie >"$aptroot/etc/apt/preferences.d/one-suite"
	cat >"$APT_CONFIG" <<-C
		Dir "$aptroot/";
		Dir::State "$aptroot/var/lib/apt";
		Dir::State::status "$aptroot/var/lib/dpkg/status";
		Dir::Cache "$aptroot/var/cache/apt";
		Dir::Etc "$aptroot/etc/apt";
		APT::Architecture "$arch";
		APT::Architectures {"$arch";};
		APT::Sandbox::User "root";
		APT::Update::Error-Mode "any";
		Acquire::Languages "none";
		Acquire::Check-Valid-Until "false";
		Acquire::Retries "3";
	C
}

# A suite that has left the archive (404) is no error, a network that fails is.
apt_update() {
	fresh "$aptroot/ok" && return
	apt_setup
	local log=$aptroot/update.log
	if ! apt-get -q update >"$log" 2>&1; then
		if ! grep -q '404' "$log" || grep -E '^(Err|W:|E:)' "$log" | grep -E 'Could not|Failed to fetch|timed out|Unable to connect' | grep -qv 404; then
			cat "$log" >&2
			return 1
		fi
		grep -E '^E:.*404|^Err.*' "$log" >&2 || true
	fi
	touch "$aptroot/ok"
}

# releases SERIES CLOUD: the builds of a series, newest first.
releases() {
	local series=${1//./\\.} cloud=$2
	[ "$1" != newest ] || series='[0-9]+\.[0-9]+'
	apt-cache pkgnames | grep -E "^linux-(image|binary)-${series}[.+-][^ ]*$arch\$" |
		grep -v -e unsigned -e -rt- -e -dbg -e '~rc' -e -16k |
		if [ -n "$cloud" ]; then grep -- "-cloud-$arch\$"; else grep -v -- -cloud-; fi |
		sed -E 's/^linux-(image|binary)-//' | grep -E '^[0-9]+\.[0-9]+[.+-]' | sort -rVu
}

# packages RELEASE: what holds its image and modules; from 6.19 on they are apart.
packages() {
	if apt-cache show "linux-binary-$1" >/dev/null 2>&1; then
		apt-cache show "linux-modules-$1" >/dev/null 2>&1 && echo "linux-binary-$1 linux-base-$1 linux-modules-$1"
	else
		echo "linux-image-$1"
	fi
	true
}

# unpack RELEASE: the fetched packages in the current folder become the kernel.
unpack() {
	local rel=$1 m
	for d in ./*.deb; do dpkg -x "$d" x; done
	m=$(ls -d x/lib/modules/*/ x/usr/lib/modules/*/ 2>/dev/null | head -1 || true)
	cp "$(ls x/boot/vmlinuz-* "${m:-/nonexistent/}vmlinuz" 2>/dev/null | head -1)" vmlinuz
	cp "$(ls x/boot/config-* "${m:-/nonexistent/}config" 2>/dev/null | head -1)" config 2>/dev/null || true
	mkdir -p modroot/lib/modules
	mv "$m" "modroot/lib/modules/$rel"
	PATH=$PATH:/sbin:/usr/sbin depmod -b "$PWD/modroot" "$rel"
	rm -rf x ./*.deb
	echo "$rel" >version
}

fetch_kernel() {
	local series=${what%-cloud} cloud= rel pkgs list log=$aptroot/download.log
	[ "$series" = "$what" ] || cloud=cloud
	list=$(releases "$series" "$cloud" || true)
	if [ -z "$list" ]; then
		echo "the archive lists no kernel $what for $arch" >&2
		return $GONE
	fi
	for rel in $list; do
		if [ -e "$dir/version" ] && [ "$(cat "$dir/version")" = "$rel" ]; then
			touch "$dir/checked"
			return
		fi
		pkgs=$(packages "$rel")
		[ -n "$pkgs" ] || continue # no modules
		rm -rf "$dir.new"
		mkdir -p "$dir.new"
		cd "$dir.new"
		# shellcheck disable=SC2086 # a list
		if apt-get -q download $pkgs >"$log" 2>&1; then
			unpack "$rel"
			touch checked
			rm -rf "$dir"
			mv "$dir.new" "$dir"
			return
		fi
		if ! grep -q '404  *Not Found' "$log"; then
			cat "$log" >&2
			return 1
		fi
		echo "404: $pkgs" >&2 # the index lists what the pool has lost: try the build before it
	done
	return $GONE
}

fetch_tools() {
	rm -rf "$dir" "$aptroot"/var/cache/apt/archives/*.deb
	mkdir -p "$dir"
	apt-get -q -y --download-only --no-install-recommends install busybox-static e2fsprogs iproute2 iptables mount >"$aptroot/download.log" 2>&1 || {
		cat "$aptroot/download.log" >&2
		return 1
	}
	for d in "$aptroot"/var/cache/apt/archives/*.deb; do dpkg -x "$d" "$dir"; done
	rm -f "$aptroot"/var/cache/apt/archives/*.deb
	touch "$dir/checked"
}

fetch_source() {
	local series=$1 to=$cache/src/$1
	[ ! -e "$to/Makefile" ] || return 0
	rm -rf "$to.new"
	mkdir -p "$to.new"
	cd "$to.new"
	apt-get -q download "linux-source-$series"
	dpkg -x linux-source-"$series"_*.deb .deb
	tar xf .deb/usr/src/linux-source-"$series".tar.xz --strip-components=1
	rm -rf .deb ./*.deb
	mv "$to.new" "$to"
}

case $what in
tools) [ -e "$dir/checked" ] || { apt_update && fetch_tools; } ;;
source) apt_update && fetch_source "$3" ;;
*)
	fresh "$dir/checked" && exit 0
	if ! apt_update; then
		[ -e "$dir/version" ] || exit 1
		echo "the archive does not answer: $what from the cache" >&2
		exit 0
	fi
	rc=0
	fetch_kernel || rc=$?
	if [ $rc = $GONE ] && [ -e "$dir/version" ]; then
		echo "the archive has lost $what: from the cache" >&2
		rc=0
	fi
	exit $rc
	;;
esac
