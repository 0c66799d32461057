#!/usr/bin/env python3
"""The user's view: Linux on the soft engine with a shell on a terminal, line editing, Ctrl-C, Ctrl-A H, Ctrl-A X.

Usage: shell.py GUISE GUEST
"""
import os
import pty
import select
import sys
import time

PROMPT = b"guise:~# "


class Terminal:
    """A program on a pseudo-terminal of its own."""

    def __init__(self, command):
        self.seen = b""
        try:
            self.pid, self.fd = pty.fork()
        except OSError as error:
            print("no pseudo-terminal here (is /dev/pts mounted?): %s" % error)
            sys.exit(77)
        if self.pid == 0:
            try:
                os.execv(command[0], command)
            finally:
                os._exit(127)

    def send(self, data):
        os.write(self.fd, data)

    def expect(self, text, seconds):
        """Reads until text comes; what follows it stays for the next call, what precedes it is forgotten."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            left = end - time.monotonic()
            if left <= 0 or self.read(left) == b"":
                why = "did not come within %d s" % seconds if left <= 0 else "did not come before the end"
                sys.exit("\nFAIL: %r %s; last seen: %r" % (text, why, self.seen[-500:]))
        self.seen = self.seen.split(text, 1)[1]

    def read(self, seconds):
        """Returns what came within the time: None if nothing did, b"" at the program's end."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return None
        try:
            data = os.read(self.fd, 4096)
        except OSError:  # the other side is closed
            data = b""
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        self.seen += data
        return data

    def status(self, seconds):
        """Waits for the program's end and returns its exit status."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.read(0.1)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, 9)
        sys.exit("FAIL: the program did not end within %d s" % seconds)


def boot(guise, guest):
    return Terminal([guise, "run", "-e", "soft", "-k", guest + "/vmlinuz", "-i", guest + "/initramfs.cpio",
                     "-a", "console=ttyS0 quiet TERM=dumb guise.size=30x100"])


def expect_status(terminal, wanted):
    got = terminal.status(20)
    if got != wanted:
        sys.exit("FAIL: exit status %d, not %d" % (got, wanted))


def main():
    guise, guest = sys.argv[1:3]
    for name in ("vmlinuz", "initramfs.cpio"):
        if not os.access(guest + "/" + name, os.R_OK):
            print("no %s/%s: tools/guest-files.sh makes it (make test runs it)" % (guest, name))
            sys.exit(77)

    shell = boot(guise, guest)
    shell.expect(PROMPT, 100)
    shell.send(b"echo answer=$((6 * 7))\r")
    shell.expect(b"answer=42", 10)
    shell.expect(PROMPT, 10)
    shell.send(b"stty size\r")
    shell.expect(b"30 100", 10)
    shell.expect(PROMPT, 10)
    # Ctrl-C reaches the guest, not the monitor, and interrupts the foreground job.
    shell.send(b"sleep 1000\r")
    time.sleep(1)
    shell.send(b"\x03")
    shell.expect(PROMPT, 10)
    # Job control: a stopped job is known by its number.
    shell.send(b"sleep 1001\r")
    time.sleep(1)
    shell.send(b"\x1a")
    shell.expect(b"Stopped", 10)
    shell.expect(PROMPT, 10)
    shell.send(b"kill -9 %1; echo back=$((40 + 3))\r")
    shell.expect(b"back=43", 10)
    # More input at once than a UART's FIFO holds.
    line = b"x" * 200
    shell.send(b"echo " + line + b" | wc -c\r")
    shell.expect(b"201", 10)
    shell.expect(PROMPT, 10)
    shell.send(b"\x01h")
    shell.expect(b"Ctrl-A", 10)
    shell.send(b"\r")
    shell.expect(PROMPT, 10)
    shell.send(b"exit\r")
    expect_status(shell, 0)

    shell = boot(guise, guest)
    shell.expect(PROMPT, 100)
    shell.send(b"\x01x")
    expect_status(shell, 0)


main()
