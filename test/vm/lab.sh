#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# lab.sh - build the lab kernel: Linux 5.10 without BTF and without kprobes, as
# old distributions have it and no package in the archive does. It is built once
# and kept in the cache ($HUATUO_CACHE or ~/.cache/huatuo/kernels).
#
# It takes about ten CPU minutes and 1.5 GB of disk, of which 6 MB stay. Needs
# gcc, make, flex, bison, bc, libelf-dev and libssl-dev.
set -euo pipefail

name=lab-5.10 # as in kernels.go
series=5.10
here=$(dirname "$(readlink -f "$0")")
cache=${HUATUO_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/huatuo/kernels}
to=$cache/amd64/$name
config=$(sha256sum "$here/lab.config" | cut -c1-16)

[ ! -e "$to/built" ] || [ "$(cat "$to/built")" != "$config" ] || exit 0
for tool in gcc make flex bison bc; do
	command -v $tool >/dev/null || {
		echo "lab.sh needs $tool: apt-get install gcc make flex bison bc libelf-dev libssl-dev" >&2
		exit 1
	}
done
HUATUO_CACHE=$cache "$here/kget.sh" amd64 source $series
src=$cache/src/$series
obj=$cache/src/$name
mkdir -p "$obj"
make -s -C "$src" O="$obj" KCONFIG_ALLCONFIG="$here/lab.config" allnoconfig 2>&1 | grep -v override || true
for want in BPF_SYSCALL=y BPF_EVENTS=y MEMCG=y NF_TABLES=y; do
	grep -q "^CONFIG_$want" "$obj/.config" || {
		echo "lab.config lacks what CONFIG_$want depends on" >&2
		exit 1
	}
done
if grep -E '^CONFIG_(KPROBES|DEBUG_INFO_BTF)=y' "$obj/.config" >&2; then
	echo "lab.config turns on what it is to be without" >&2
	exit 1
fi
make -s -C "$src" O="$obj" -j"$(nproc)" KCFLAGS=-w bzImage
rel=$(cat "$obj/include/config/kernel.release")
rm -rf "$to"
mkdir -p "$to/modroot/lib/modules/$rel"
cp "$obj/arch/x86/boot/bzImage" "$to/vmlinuz"
cp "$obj/.config" "$to/config"
cp "$obj/modules.builtin" "$to/modroot/lib/modules/$rel/" 2>/dev/null || : >"$to/modroot/lib/modules/$rel/modules.builtin"
: >"$to/modroot/lib/modules/$rel/modules.dep"
echo "$rel" >"$to/version"
echo "$config" >"$to/built"
rm -rf "$obj" "$src"
