#!/bin/sh
# Fetches the packages of the whole jobs, with all that they depend on, and unpacks them (never installs them)
# into the cache. Prints the directory.
# Usage: bench/job-files.sh
set -eu
tools=$(cd "$(dirname "$0")/../tools" && pwd)
. "$tools/lib.sh"
. "$tools/packages.sh"

wanted='gcc openssl xz-utils zstd sqlite3 python3-minimal'
directory=$(cache_dir)

# closure: prints what apt would install of them on a system that has nothing.
closure()
{
	# shellcheck disable=SC2086 # words are wanted
	apt-get -s -q -o Dir::State::status=/dev/null install --no-install-recommends $wanted 2>/dev/null |
		sed -n 's/^Inst \([^ ]*\) .*/\1/p'
}

if [ ! -d "$directory/jobs" ]; then
	need_apt "what the benchmark's jobs run comes"
	packages=$(closure)
	if [ -z "$packages" ]; then
		refresh_apt
		packages=$(closure)
	fi
	[ -n "$packages" ] || die "not in this system's package lists, some or all: $wanted"
	# shellcheck disable=SC2086
	unpack "$directory" jobs $packages
fi
printf '%s\n' "$directory/jobs"
