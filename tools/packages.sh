# Debian's packages unpacked into the cache, never installed; sourced after lib.sh, not run.
# shellcheck shell=sh

# Apt drops root's rights to download and then complains about a directory that it cannot write.
apt_get()
{
	apt-get -q -o APT::Sandbox::User="$(id -un)" "$@"
}

refresh_apt()
{
	[ -z "${refreshed:-}" ] || return 0
	refreshed=yes
	say 'refreshing the package lists'
	as_root apt-get -q update >&2
}

need_apt()
{
	for tool in apt-get apt-cache dpkg-deb; do
		command -v "$tool" >/dev/null 2>&1 || die "$tool is missing: $1 from Debian's packages"
	done
}

# unpack DIRECTORY NAME PACKAGE...: downloads the packages and unpacks them as DIRECTORY/NAME, all or nothing.
unpack()
{
	directory=$1 name=$2
	shift 2
	if [ $# -eq 1 ]; then
		say "fetching $1"
	else
		say "fetching $# packages for $name"
	fi
	mkdir -p "$directory"
	tmp=$(mktemp -d "$directory/tmp.XXXXXX")
	if ! (cd "$tmp" && apt_get download "$@" >&2); then
		refresh_apt
		(cd "$tmp" && apt_get download "$@" >&2) || {
			rm -rf "$tmp"
			die "cannot download $*: is there a network, and are Debian's sources in /etc/apt?"
		}
	fi
	mkdir "$tmp/root"
	for deb in "$tmp"/*.deb; do
		dpkg-deb -x "$deb" "$tmp/root"
	done
	# Another build may have been faster; its copy is as good.
	mv -T "$tmp/root" "$directory/$name" 2>/dev/null || [ -d "$directory/$name" ]
	rm -rf "$tmp"
}
