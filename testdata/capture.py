"""Captures of one client and one server, with the client's own log beside them.

For the make.py of each protocol, which is called without arguments, as root. Needs
util-linux, iproute2, ethtool and tcpdump. Nothing leaves the network namespace that
is made for it, and which is gone with the process.

A line of the log is a record as weir is to tell it (docs/records.md), as far as the
client knows: what stands there must be the same in weir's record, `null` must be
absent. Where nothing else is said, the protocol is the folder's, and request and
answer were seen whole and together. `port` is the client's.
crates/weir/tests/made_captures.rs compares.
"""

import contextlib
import gzip
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

FOLDER = pathlib.Path(sys.argv[0]).resolve().parent
LIMIT_S = 10
# Tells tcpdump's file that everything before it is there.
MARK = b"weir: nothing is captured after this"
HEADERS_BYTES = 16 + 14 + 20 + 8  # of pcap, Ethernet, IPv4 and UDP


def wait_until(what, condition):
    """Waits for a condition, briefly."""
    end = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"{what}: not after {LIMIT_S} s")
        time.sleep(0.01)


def alone():
    """Goes on in a network namespace of its own, whose frames are as long as on a wire."""
    socket.setdefaulttimeout(LIMIT_S)
    # Whoever stops this stops its servers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    if "WEIR_CAPTURE" not in os.environ:
        os.environ["WEIR_CAPTURE"] = "alone"
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])
    subprocess.run("ip link set lo up mtu 1500".split(), check=True)
    subprocess.run("ethtool -K lo tso off gso off gro off".split(), check=True)


def listens(port):
    """Whether somebody takes connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def temporary():
    """A folder for a server's files, which any user may write to."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield pathlib.Path(folder)


@contextlib.contextmanager
def server(port, *command):
    """A server that runs as long as this is left open."""
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    try:
        wait_until(f"{command[0]} on port {port}", lambda: listens(port))
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(LIMIT_S)


@contextlib.contextmanager
def capture(name, *ports):
    """Writes what passes on ports into NAME.pcap.gz, and the log that is filled into NAME.jsonl."""
    log = []
    with temporary() as folder:
        file = folder / "pcap"
        filters = " or ".join(f"port {port}" for port in (*ports, "9"))
        command = ["tcpdump", "-i", "lo", "--immediate-mode", "-U", "-Z", "root", "-w", str(file), filters]
        tcpdump = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            while "listening on" not in tcpdump.stderr.readline():
                assert tcpdump.poll() is None, "tcpdump ended"
            yield log
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mark:
                mark.sendto(MARK, ("127.0.0.1", 9))
            wait_until("the end of the capture", lambda: MARK in file.read_bytes())
            packets = file.read_bytes()
        finally:
            tcpdump.send_signal(signal.SIGINT)
            tcpdump.wait(LIMIT_S)
    packets = packets[: packets.index(MARK) - HEADERS_BYTES]
    (FOLDER / f"{name}.pcap.gz").write_bytes(gzip.compress(packets, 9, mtime=0))
    (FOLDER / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
