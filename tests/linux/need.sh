# Shared by the Linux boot tests; sourced, not run.
# shellcheck shell=sh

# skip WHY...: ends the test as skipped.
skip()
{
	echo "$*"
	exit 77
}

# need_guest GUEST: the guest's files must be there.
need_guest()
{
	for file in vmlinuz initramfs.cpio; do
		[ -r "$1/$file" ] || skip "no $1/$file: tools/guest-files.sh makes it (make test runs it)"
	done
}
