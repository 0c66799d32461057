#!/usr/bin/env python3
"""The remote protocol byte by byte: framing, what gdb does not ask for, and garbage, after which the server must still
answer and the guest still run.

Usage: protocol.py GUISE [SEED]
"""
import os
import random
import re
import socket
import sys
import tempfile
import time

from machine import Client, Machine
import guests
from tap import check, finish

guise = sys.argv[1]
seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1 << 32)
rounds = 150 if os.environ.get("GUISE_QUICK") else 600
scratch = tempfile.TemporaryDirectory()

guests.SOURCES["work16"] = ".code16; 1: incw 0x2000; jmp 1b"


def machine(options=""):
    return Machine(guise, "soft", ["--serial=none", "--flat", guests.assemble("work16", scratch.name)], options)


def test_framing():
    with machine() as m:
        client = Client(m)
        client.packet("?")
        check(client.byte() == b"+", "a packet is acknowledged")
        check(client.reply() == "T05thread:1;", "a stop reply")
        client.send(b"$?#00")
        check(client.quiet() == b"-", "a wrong checksum is not")
        client.send(b"-")
        check(client.quiet() == b"$T05thread:1;#%02x" % (sum(b"T05thread:1;") & 0xff), "what was sent last is sent again")
        client.send(b"+++noise$g#noi$?#3f")
        check(client.reply() == "T05thread:1;", "noise, and a packet that was broken off")
        client.send(b"$?#")
        check(client.quiet() == b"", "half a packet")
        client.send(b"3f")
        check(client.reply() == "T05thread:1;", "and its other half")
        check(client.ask("QStartNoAckMode") == "OK", "no acknowledgements")
        client.quiet()
        client.send(b"$?#00")
        check(client.quiet() == b"$T05thread:1;#%02x" % (sum(b"T05thread:1;") & 0xff), "nor checksums")


def test_answers():
    with machine() as m:
        client = Client(m)
        features = client.ask("qSupported:multiprocess+;swbreak+;hwbreak+;xmlRegisters=i386")
        check(all(word in features for word in ["PacketSize=4000", "qXfer:features:read+", "vContSupported+"]),
              "qSupported", features)
        xml, offset = "", 0
        while True:
            part = client.ask("qXfer:features:read:target.xml:%x,100" % offset)
            xml += re.sub("}(.)", lambda found: chr(ord(found.group(1)) ^ 0x20), part[1:])
            offset = len(xml)
            if part[0] != "m":
                break
        registers = len(re.findall("<reg ", xml))
        check(part[0] == "l" and xml.endswith("</target>\n") and "i8086" in xml, "the description in pieces", xml)
        bits = sum(int(n) for n in re.findall('bitsize="(\\d+)"', xml))
        everything = client.ask("g")
        check(len(everything) == bits // 4, "g is as long as described")
        check(client.ask("G" + everything) == "OK" and client.ask("g") == everything, "G takes what g gives")
        check(client.ask("p%x" % (registers - 1)) == everything[-16:], "p: the last register")
        for question, answer in [
                ("vMustReplyEmpty", ""), ("qNonsense", ""), ("vCont?", "vCont;c;C;s;S"), ("qfThreadInfo", "m1"),
                ("qsThreadInfo", "l"), ("qC", "QC1"), ("T1", "OK"), ("T2", "E01"), ("Hg1", "OK"), ("Hg0", "OK"),
                ("Hc-1", "OK"), ("Hg7", "E01"), ("qAttached", "1"), ("qAttached:1", "1"), ("qSymbol::", "OK"),
                ("p%x" % registers, "E16"), ("P0=1", "E16"), ("P0=zzzzzzzz", "E16"), ("G00", "OK"),
                ("m0,2", "ff06"), ("m0,0", ""), ("m3fffffe,10", "0000"), ("m4000000,1", "E0e"), ("mzz", "E01"),
                ("m0,2,3", "E01"), ("m0", "E01"), ("m11111111111111111,1", "E01"),
                ("M3000,2:a5b6", "OK"), ("m3000,2", "a5b6"), ("M3000,2:a5", "E01"), ("M4000000,1:00", "E0e"),
                ("qqemu.PhyMemMode", "0"), ("Qqemu.PhyMemMode:1", "OK"), ("qqemu.PhyMemMode", "1"),
                ("Z0,4,1", "OK"), ("Z0,4,1", "OK"), ("m4,1", "eb"), ("M4,1:90", "OK"), ("m4,1", "90"), ("z0,4,1", "OK"),
                ("m4,1", "90"), ("M4,1:eb", "OK"), ("z0,4,1", "OK"), ("Z0,fffff000,1", "E0e"), ("Z9,0,1", ""),
                ("Z3,0,1", ""), ("Z2,0,0", "E16"), ("Z2,0,ffffffffffffffff", "E16"), ("Z2,1,8", "OK"),
                ("Z1,0,1", "E1c"), ("z2,1,8", "OK"), ("Z2,1,7", "OK"), ("Z1,0,1", "OK"), ("Z4,0,10", "E1c"),
                ("z2,1,7", "OK"), ("z1,0,1", "OK"),
                ("Z0,4", "E01"), ("Z", "E01"), ("Z0", "E01"), ("vCont", "E01"), ("vCont;", "E01"), ("vCont;x", "E01"),
                ("vCont;c:7", "E01"), ("qXfer:features:read:other.xml:0,10", "E00"),
                ("qXfer:features:read:target.xml:ffffff,10", "E01"), ("qXfer:features:read:target.xml", "E00"),
                ("qRcmd,zz", "E01"), ("qRcmd,6", "E01"), ("qThreadExtraInfo,2", "E01"), ("s1g", "E01")]:
            got = client.ask(question)
            check(got == answer, "%s is %s" % (question, answer or "not known"), got)
        client.packet(b"X3000,4:\x03}\x04}\x03a")
        check(client.reply() == "OK" and client.ask("m3000,4") == "03242361", "X undoes escapes")
        client.packet("vCont;s:1")
        check(client.reply() == "T05thread:1;", "one step")
        check(client.ask("s0") == "T05thread:1;", "a step from another address")
        check(client.ask("m2000,2") == "0200", "both did what they are")
        client.packet("c")
        client.send(b"\x03")
        check(client.reply() == "T02thread:1;", "^C")
        second = Client(m)
        try:
            check(second.socket.recv(1) == b"", "a second debugger is turned away")
        except ConnectionResetError:
            check(True, "a second debugger is turned away")
        check(client.ask("?") == "T02thread:1;", "the first one does not mind")


def counter(client):
    return client.ask("m2000,2")


def stops_by_itself(client, seconds=0.1):
    """Whether a guest that is told to go on stops before it is interrupted."""
    client.packet("c")
    early = b"$T" in client.quiet(seconds)
    if not early:
        client.send(b"\x03")
        client.reply()
    return early


def test_connections():
    with machine() as m:
        client = Client(m)
        client.ask("Z0,4,1")
        client.close()
        client = Client(m)
        check(counter(client) == "0000", "left at rest, it rests")
        check(not stops_by_itself(client), "without breakpoints")
        # A breakpoint behind the loop; a later session leads the guest there.
        client.ask("M6,2:ebf8")
        first, ran = "T02", False
        for n in range(30):
            client.ask("M4,2:ebfa")
            client.ask("s")  # it may be at the jump behind the loop
            client.ask("Z0,6,1")
            before = counter(client)
            client.packet("c")
            time.sleep(0.01)
            client.close()
            client = Client(m)
            first = client.ask("?")
            client.ask("M4,2:eb00")
            ran |= counter(client) != before
            if first != "T02thread:1;" or stops_by_itself(client, 0.01):
                break
        else:
            n = None
        check(n is None and ran, "left running, it runs, without breakpoints then, too", "round %s: %s" % (n, first))
        check(client.ask("D") == "OK", "detach")
        before = None
        client.close()
        for _ in range(2):
            time.sleep(0.1)
            client = Client(m)
            check(counter(client) != before, "it goes on behind detach")
            before = counter(client)
            client.ask("D")
            client.close()
        client = Client(m)
        client.packet("vKill;1")
        check(client.reply() == "OK" and m.end() == 0, "vKill")


COMMANDS = ["?", "g", "G", "p3", "P3=00000000", "m0,10", "M3000,1:00", "X3000,1:a", "Z0,4,1", "z0,4,1", "Z1,0,1", "Z2,3000,2",
            "Z4,3000,4", "z1,0,1", "z2,3000,2", "vCont;c", "vCont;s:1", "vCont?", "c", "s", "C05", "S05;0", "Hg1", "Hc-1",
            "T1", "qSupported:swbreak+", "qXfer:features:read:target.xml:0,fff", "qfThreadInfo", "qThreadExtraInfo,1",
            "qRcmd,72656769737465727320", "qRcmd,77616c6b2030", "qRcmd,7870203020313030", "Qqemu.PhyMemMode:1", "qC"]
FATAL = re.compile(rb"^(k|vKill|D)|^QStartNoAckMode")


def garbage(random_, length):
    return bytes(random_.randrange(256) for _ in range(length))


def mutated(random_):
    data = bytearray(random_.choice(COMMANDS).encode())
    for _ in range(random_.randrange(4)):
        place = random_.randrange(len(data) + 1)
        what = random_.randrange(4)
        if what == 0:
            data[place:place] = garbage(random_, random_.randrange(1, 9))
        elif what == 1 and place < len(data):
            del data[place]
        elif what == 2:
            data[place:place] = b"f" * random_.randrange(1, 40)
        else:
            data[place:place] = random_.choice([b",", b":", b";", b"-", b"}", b"*", b"\0", b"-1"])
    return bytes(data)


def round_of(random_, client):
    kind = random_.randrange(8)
    if kind == 0:
        client.send(garbage(random_, random_.randrange(2000)).replace(b"$k", b"$q"))
    elif kind == 1:  # longer than anything, and never complete
        client.send(b"$" + b"m" * random_.randrange(1, 100000))
    elif kind == 2:
        client.send(random_.choice([b"+", b"-", b"\x03", b"#", b"$$", b"$#00", b"}"]) * random_.randrange(1, 300))
    elif kind == 3:
        client.send(b"$" + mutated(random_) + b"#" + garbage(random_, 2))
    else:
        data = mutated(random_)
        if not FATAL.match(data):
            client.packet(data)


def throw_garbage(random_, m, n):
    """One connection; now and then another one that asks whether the server still answers."""
    client = Client(m)
    try:
        for _ in range(random_.randrange(1, 20)):
            round_of(random_, client)
        if n % 10 == 0:
            client.quiet(0.02)
    except (BrokenPipeError, ConnectionResetError, socket.timeout):
        pass
    client.close()
    if n % 50 == 49:
        client = Client(m)
        client.send(b"+")
        assert client.ask("?").startswith("T") and len(client.ask("m0,4")) == 8, "no answer"
        client.ask("D")
        client.close()


def guest_died(m):
    """Whether the run has ended because of what the garbage made of the guest's code and registers."""
    return m.end(1) == 2 and "the guest failed: triple fault" in m.output()


def test_garbage():
    random_ = random.Random(seed)
    print("# seed %d" % seed)
    n = deaths = 0
    while n < rounds:
        with machine() as m:
            try:
                while n < rounds and m.process.poll() is None:
                    n += 1
                    throw_garbage(random_, m, n)
                client = Client(m)
                client.ask("M0,6:ff060020ebfa")
                client.ask("M2000,2:0000")
                client.packet("s0")
                client.reply()
                client.packet("k")
                check(m.end() == 0, "and the machine can still be ended", m.output())
            except (OSError, AssertionError) as error:
                if not guest_died(m):
                    check(False, "garbage, connection %d" % n, "%r\n%s" % (error, m.output()))
                    return
                deaths += 1
    print("# %d guests died of it" % deaths)
    check(deaths < rounds / 10, "%d connections full of garbage" % rounds)


for test in [test_framing, test_answers, test_connections, test_garbage]:
    try:
        test()
    except Exception as error:
        check(False, test.__name__, repr(error))
finish()
