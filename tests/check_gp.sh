#!/bin/sh
# The soft engine's code that runs while the guest's vector registers are live in the host's (soft_gp_sources) calls
# only code of the same kind, assembly, and the few functions allowed here. The compiler's -mgeneral-regs-only
# keeps vector instructions out of the code itself; this keeps out calls to code that was compiled otherwise, such as a
# memcpy that the compiler put in by itself.
# Usage: check_gp.sh GP_LIBRARY OTHER_LIBRARY...
set -eu

# Tracing saves what it uses (trace_line_gp), and before it calls something (trace_call_gp: vmx_show_*). clock_gettime uses general registers only, in libc and in the vDSO alike.
# The linker turns __tls_get_addr, as a program's own thread-local data need it, into plain loads.
allowed='_GLOBAL_OFFSET_TABLE_ trace_level trace_line_gp trace_call_gp clock_gettime __tls_get_addr'
allowed="$allowed vmx_show_entry vmx_show_exit vmx_show_failure vmx_show_error"

command -v nm >/dev/null 2>&1 || {
	echo 'no nm (Debian: binutils)'
	exit 77
}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

gp=$1
nm -u "$gp" 2>/dev/null | sed -n 's/^ *[Uw] //p' | sort -u >"$tmp/used"
[ -s "$tmp/used" ] || {
	echo "FAIL: $gp calls nothing at all, which cannot be"
	exit 1
}
{
	echo "$allowed" | tr ' ' '\n'
	nm --defined-only "$gp" 2>/dev/null | awk 'NF == 3 { print $3 }'
	# From elsewhere: assembly, and data.
	nm -A --defined-only "$@" 2>/dev/null |
		awk 'NF == 3 && ($1 ~ /\.S\.o:/ || $2 ~ /^[BbDdRr]$/) { print $3 }'
} | sort -u >"$tmp/fine"

if comm -23 "$tmp/used" "$tmp/fine" | grep . >"$tmp/wrong"; then
	while read -r symbol; do
		nm -A -u "$gp" 2>/dev/null | sed -n "s/^.*:\(.*\.o\): *[Uw] $symbol\$/FAIL: \1 calls $symbol/p"
	done <"$tmp/wrong"
	exit 1
fi
