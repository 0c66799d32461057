# Shared by the project's shell scripts; sourced, not run.
# shellcheck shell=sh

if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$(printf '\033[1m') red=$(printf '\033[31m') plain=$(printf '\033[0m')
else
	bold='' red='' plain=''
fi

# say TEXT...: one line of progress.
say()
{
	printf '%s==>%s %s\n' "$bold" "$plain" "$*" >&2
}

# die TEXT...: what went wrong and what to do about it; ends the script with status 1.
die()
{
	printf '%serror:%s %s\n' "$red" "$plain" "$*" >&2
	exit 1
}

# as_root COMMAND...: runs it as root, through sudo where needed.
as_root()
{
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo "$@"
	else
		die "this needs root, and there is no sudo: run as root: $*"
	fi
}

# cache_dir: prints the directory that keeps downloads; the guise program looks for a kernel there too.
cache_dir()
{
	printf '%s/guise\n' "${XDG_CACHE_HOME:-${HOME:-/root}/.cache}"
}
