"""Asks dnsmasq, over UDP and TCP, and writes down what was asked and what came back.

    python3 make.py

Needs dnsmasq (Debian: dnsmasq-base) and the Python package dnspython. See ../capture.py.
"""

import pathlib
import socket
import struct
import sys

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdatatype

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from capture import alone, capture, server

# Nobody answers at the second.
PORT, SILENT = 53, 5399
TEXT = "dnsmasq --no-daemon --conf-file --no-resolv --no-hosts --listen-address=127.0.0.1 --local=/test/"
RECORDS = [
    "--host-record=shop.test,10.0.0.7,fd00::7",
    "--address=/many.test/10.0.1.1",
    "--cname=www.shop.test,shop.test",
    "--mx-host=shop.test,mail.test,10",
    "--srv-host=_sip._tcp.shop.test,shop.test,5060,1,2",
    "--ptr-record=7.0.0.10.in-addr.arpa,shop.test",
    "--caa-record=shop.test,0,issue,ca.test",
    *[f"--txt-record=big.test,{str(number) * 200}" for number in range(9)],
]


def ask(name, kind="A", **options):
    """A question. Names are written as they are sent: capital letters stay."""
    return dns.message.make_query(name, kind, **options)


QUESTIONS = [
    ask("shop.test"), ask("shop.test", "AAAA"), ask("SHOP.test"), ask("www.shop.test"), ask("shop.test", "MX"),
    ask("_sip._tcp.shop.test", "SRV"), ask("7.0.0.10.in-addr.arpa", "PTR"), ask("shop.test", "CAA"),
    ask("shop.test", "ANY"), ask("none.test"), ask("shop.test", "TXT"), ask("elsewhere.example"),
    ask("a" * 63 + ".many.test"), ask("shop.test", use_edns=0, payload=1232, want_dnssec=True), ask(".", "NS"),
    ask("big.test", "TXT"), ask("big.test", "TXT", use_edns=0, payload=4096),
    ask("version.bind", "TXT", rdclass="CH"),
]


def entry(question, transport, port, asked_bytes):
    """What is known of a question before its answer."""
    name = question.question[0].name.to_text().rstrip(".") or "."
    return {
        "port": port, "matched": "no_response",
        "operation": dns.rdatatype.to_text(question.question[0].rdtype), "target": name.lower(),
        "request_bytes": asked_bytes, "status": None, "ok": None,
        "attributes": {"network.transport": transport},
    }


def answered(noted, wire, length_bytes):
    answer = dns.message.from_wire(wire)
    noted |= {
        "matched": "yes", "status": dns.rcode.to_text(answer.rcode()), "ok": answer.rcode() == 0,
        "response_bytes": len(wire) + length_bytes,
    }
    noted["attributes"]["weir.dns.answer_count"] = sum(len(records) for records in answer.answer)
    if answer.flags & dns.flags.TC:
        noted["attributes"]["weir.anomalies"] = ["truncated by the server"]
    return noted


def by_udp(log, questions):
    """All of them from one socket; each before the answer of the one before it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect(("127.0.0.1", PORT))
        port = client.getsockname()[1]
        waiting = {}
        for question in questions:
            wire = question.to_wire()
            client.send(wire)
            waiting[question.id] = entry(question, "udp", port, len(wire))
            log.append(waiting[question.id])
            if len(waiting) > 1:
                wire = client.recv(65535)
                answered(waiting.pop(dns.message.from_wire(wire).id), wire, 0)
        for _ in list(waiting):
            wire = client.recv(65535)
            answered(waiting.pop(dns.message.from_wire(wire).id), wire, 0)


def by_tcp(log, questions, together):
    """One connection; as many questions at a time as `together` says."""
    with socket.create_connection(("127.0.0.1", PORT)) as client:
        port = client.getsockname()[1]
        file = client.makefile("rb")
        for start in range(0, len(questions), together):
            waiting, sent = {}, b""
            for question in questions[start : start + together]:
                wire = question.to_wire()
                sent += struct.pack("!H", len(wire)) + wire
                waiting[question.id] = entry(question, "tcp", port, len(wire) + 2)
                log.append(waiting[question.id])
            client.sendall(sent)
            while waiting:
                wire = file.read(struct.unpack("!H", file.read(2))[0])
                answered(waiting.pop(dns.message.from_wire(wire).id), wire, 2)


def unanswered(log):
    """Nobody listens there, and nobody says so."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", SILENT))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect(("127.0.0.1", SILENT))
            for name in ("one.test", "two.test"):
                question = ask(name)
                client.send(question.to_wire())
                log.append(entry(question, "udp", client.getsockname()[1], len(question.to_wire())))


def main():
    alone()
    with server(PORT, *TEXT.split(), *RECORDS):
        with capture("udp", PORT, SILENT) as log:
            by_udp(log, QUESTIONS)
            for question in QUESTIONS[:4]:
                by_udp(log, [question])
            unanswered(log)
        with capture("tcp", PORT) as log:
            by_tcp(log, QUESTIONS, 1)
            by_tcp(log, QUESTIONS, 4)


main()
