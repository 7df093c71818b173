#!/usr/bin/env bash
# Gets what `make languages` needs beyond the distribution's packages into a cache,
# and prints it as NAME=value for the environment: a .NET runtime, which Debian 12
# has none of and which an npm package carries, and a Ruby with its symbols, built
# from Debian's own source: five minutes of CPU the first time, nothing afterwards.
set -euo pipefail

cache=${HUATUO_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/huatuo}
mkdir -p "$cache"
work=$(mktemp -d "$cache/runtimes.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

# The unwinder knows the runtime by a directory that is named by its version.
dotnet=$cache/dotnet/9.0.5
if [ ! -e "$dotnet/libcoreclr.so" ]; then
	command -v mcs >/dev/null || apt-get install -y -qq --no-install-recommends mono-mcs </dev/null >&2
	npm pack --silent @azure/mcp-linux-x64@0.5.0 >&2 # MIT; the runtime in it is .NET 9.0.5
	tar xzf azure-mcp-linux-x64-0.5.0.tgz
	mkdir -p "$cache/dotnet" new
	cp package/dist/{System.*.dll,mscorlib.dll,netstandard.dll,libcoreclr.so,libclrjit.so,libSystem.*.so} new
	mv new "$dotnet"
fi

ruby=$cache/ruby-3.1.2
if [ ! -x "$ruby/bin/ruby" ]; then
	mkdir -p apt/partial
	echo 'deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main' >src.list
	apt=(apt-get -qq -o Dir::Etc::sourcelist="$work/src.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::State::lists="$work/apt" -o APT::Sandbox::User=root)
	"${apt[@]}" update >&2
	"${apt[@]}" source --download-only ruby3.1 >&2
	tar xf ruby3.1_3.1.2.orig.tar.xz
	cd ruby-3.1.2
	./configure --enable-shared --disable-install-doc --prefix="$ruby" >&2
	nice make -j2 ruby >&2
	mkdir -p "$ruby/bin" "$ruby/lib"
	cp -a libruby.so* "$ruby/lib"
	cp ruby "$ruby/bin"
fi
echo "HUATUO_DOTNET=$dotnet HUATUO_RUBY=$ruby/bin/ruby"
