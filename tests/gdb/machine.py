"""A guest with --gdb, and the two that may talk to it: the real gdb, and a bare client of the protocol."""
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
SECONDS = 60


class Machine:
    """`guise run` with a debugger's socket in a directory of its own."""

    def __init__(self, guise, engine, arguments, options="", address="unix"):
        self.directory = tempfile.TemporaryDirectory()
        self.log = open(os.path.join(self.directory.name, "log"), "w+b")
        where = "tcp:0" if address == "tcp" else "unix:%s/gdb" % self.directory.name
        self.process = subprocess.Popen(
            [guise, "run", "-e", engine, "-m", "64M", "--gdb=" + where + options] + arguments,
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        self.address = self.wait_for(r"gdb at (?:tcp|unix):(\S+)").group(1)

    def output(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def wait_for(self, pattern, seconds=SECONDS):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = re.search(pattern, self.output())
            if found:
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise TimeoutError("no %r in:\n%s" % (pattern, self.output()))

    def end(self, seconds=SECONDS):
        """The exit status once the guest has ended by itself; None: it had to be killed."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = None
        return status

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()
        self.directory.cleanup()


SETTINGS = ["gdb", "-nx", "-nh", "-q", "-iex", "set confirm off", "-iex", "set pagination off", "-iex", "set width 0",
            "-iex", "set debuginfod enabled off"]


def start_gdb(machine, commands, elf=None):
    arguments = SETTINGS + ["-batch"]
    if elf:
        arguments.append(elf)
    for command in ["target remote " + machine.address] + commands:
        arguments += ["-ex", command]
    return subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True)


def gdb(machine, commands, elf=None):
    """What the real gdb prints for @commands."""
    process = start_gdb(machine, commands, elf)
    try:
        return process.communicate(timeout=SECONDS)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0] + "\n(killed after %d s)" % SECONDS


class Session:
    """The real gdb, told one thing after another."""

    END = "END OF ANSWER"

    def __init__(self, machine, elf=None):
        self.process = subprocess.Popen(SETTINGS + ([elf] if elf else []), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)
        self.ask("target remote " + machine.address)

    def ask(self, *commands, meanwhile=None):
        """What gdb prints for @commands; meanwhile() is called while it is at work."""
        watch = threading.Timer(SECONDS, self.process.kill)
        watch.start()
        for command in commands + ("echo \\n%s\\n" % self.END,):
            self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        if meanwhile:
            meanwhile()
        text = ""
        while not text.endswith(self.END + "\n"):
            line = self.process.stdout.readline()
            if not line:
                raise EOFError("gdb is gone: " + text)
            text += line
        watch.cancel()
        return text.replace("(gdb) ", "")

    def close(self):
        self.process.communicate("quit\n", timeout=SECONDS)


def interrupt_when(process, condition):
    """^C for gdb, once @condition() holds."""
    end = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)


class Client:
    """The protocol, byte by byte."""

    def __init__(self, machine):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(machine.address)
        self.socket.settimeout(SECONDS)
        self.pending = b""

    def send(self, data):
        self.socket.sendall(data)

    def packet(self, text):
        data = text if isinstance(text, bytes) else text.encode()
        self.send(b"$" + data + b"#%02x" % (sum(data) & 0xff))

    def byte(self):
        if not self.pending:
            self.pending = self.socket.recv(65536)
            if not self.pending:
                raise EOFError
        first, self.pending = self.pending[:1], self.pending[1:]
        return first

    def reply(self):
        """The data of the next packet; what stands between packets is passed over."""
        while self.byte() != b"$":
            pass
        data = b""
        while (byte := self.byte()) != b"#":
            data += byte
        checksum = int(self.byte() + self.byte(), 16)
        assert checksum == sum(data) & 0xff
        try:
            self.send(b"+")
        except BrokenPipeError:
            pass  # it was the server's last word
        return data.decode("latin-1")

    def ask(self, text):
        self.packet(text)
        return self.reply()

    def quiet(self, seconds=0.1):
        """Whatever comes until nothing comes any more."""
        got, self.pending = self.pending, b""
        self.socket.settimeout(seconds)
        try:
            while chunk := self.socket.recv(65536):
                got += chunk
        except TimeoutError:
            pass
        self.socket.settimeout(SECONDS)
        return got

    def close(self):
        self.socket.close()
