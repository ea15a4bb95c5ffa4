"""Asks nginx and Python's HTTP server, and writes down what was asked and what came back.

    python3 make.py

Needs nginx, curl, and the Python package websockets. See ../capture.py.
"""

import asyncio
import contextlib
import http.server
import json
import pathlib
import socket
import subprocess
import sys
import threading

import websockets

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from capture import alone, capture, server, temporary

NGINX, PYTHON, WEBSOCKET = 8080, 8081, 8082
NGINX_CONF = """
daemon off; master_process off; pid pid; error_log stderr;
events { }
http {
  access_log off; gzip on; gzip_min_length 100; gzip_types text/plain;
  server {
    listen 127.0.0.1:8080;
    root www;
    client_max_body_size 100k;
    location /echo/ { return 200 "$request_uri\\n"; }
    location /old/ { return 301 /echo/new; }
    location /gone/ { return 503; }
    location /close/ { keepalive_timeout 0; return 200 "bye\\n"; }
    location /empty/ { return 204; }
    location /behind/ { proxy_pass http://127.0.0.1:8081; proxy_http_version 1.1; }
  }
}
"""


class Client:
    """One connection, and what was said on it, to the byte."""

    def __init__(self, log, port):
        self.log = log
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.port = self.socket.getsockname()[1]
        self.unread = b""
        self.waiting = []

    def send(self, method, target, *headers, body=b"", version="1.1", chunks=()):
        """A request, all of it at once."""
        head = [f"{method} {target} HTTP/{version}", "Host: shop.test", *headers]
        sent = body
        if chunks:
            head.append("Transfer-Encoding: chunked")
            body = b"".join(chunks)
            sent = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
        elif body:
            head.append(f"Content-Length: {len(body)}")
        head = "\r\n".join((*head, "", "")).encode()
        self.note(method, target, len(head) + len(sent), len(body))
        return head, sent

    def note(self, method, target, request_bytes, body_bytes):
        self.waiting.append({
            "port": self.port, "operation": method, "target": target, "request_bytes": request_bytes,
            "attributes": {"http.request.body.size": body_bytes or None},
        })

    def until(self, end):
        while end not in self.unread:
            more = self.socket.recv(65536)
            assert more, "the server hung up"
            self.unread += more
        at = self.unread.index(end) + len(end)
        found, self.unread = self.unread[:at], self.unread[at:]
        return found

    def exactly(self, count):
        while len(self.unread) < count:
            more = self.socket.recv(65536)
            assert more, "the server hung up"
            self.unread += more
        self.unread = self.unread[count:]

    def rest(self):
        while more := self.socket.recv(65536):
            self.unread += more
        count, self.unread = len(self.unread), b""
        return count

    def receive(self):
        """The answer to the oldest request; its status."""
        entry = self.waiting.pop(0)
        total = 0
        while True:
            head = self.until(b"\r\n\r\n")
            total += len(head)
            status = int(head.split()[1])
            if status >= 200 or status == 101:
                break
        fields = dict(line.lower().split(b": ", 1) for line in head.splitlines()[1:-1])
        body = 0
        if entry["operation"] == "HEAD" or status in (204, 304) or status < 200:
            pass
        elif entry["operation"] == "CONNECT" and status == 200:
            pass
        elif fields.get(b"transfer-encoding") == b"chunked":
            while True:
                line = self.until(b"\r\n")
                size = int(line.split(b";")[0], 16)
                self.exactly(size + 2)
                total += len(line) + size + 2
                body += size
                if size == 0:
                    break
        elif b"content-length" in fields:
            body = int(fields[b"content-length"])
            self.exactly(body)
            total += body
        else:
            body = self.rest()
            total += body
        entry |= {"status": str(status), "ok": status < 400, "response_bytes": total}
        entry["attributes"] |= {"http.response.status_code": status, "http.response.body.size": body}
        self.log.append(entry)
        return status

    def ask(self, method, target, *headers, **more):
        self.socket.sendall(b"".join(self.send(method, target, *headers, **more)))
        return self.receive()

    def pipeline(self, *requests):
        """All requests before the first answer."""
        self.socket.sendall(b"".join(part for request in requests for part in self.send(*request)))
        for _ in requests:
            self.receive()

    def ask_first(self, target, body, expected):
        """A request that waits for a permission to send its body."""
        head, body = self.send("POST", target, "Expect: 100-continue", body=body)
        self.socket.sendall(head)
        first = self.until(b"\r\n\r\n")
        allowed = first.split()[1] == b"100"
        assert allowed == expected, first
        self.unread = first + self.unread
        if allowed:
            self.socket.sendall(body)
        else:
            entry = self.waiting[-1]
            entry["request_bytes"] = len(head)
            del entry["attributes"]["http.request.body.size"]
        self.receive()

    def close(self):
        assert not self.unread and not self.waiting
        self.socket.close()


def curl(log, port, *words):
    """What curl says of its own requests, which are told apart by --next."""
    told = subprocess.run(
        ["curl", "-s", *" ".join(words).replace("$", f"http://127.0.0.1:{port}").split()],
        check=True, capture_output=True,
    )
    for line in told.stderr.splitlines():
        said = json.loads(line)
        sent, received = said["size_upload"], said["size_download"]
        target = said["url"].split(str(port), 1)[1]
        log.append({
            "port": said["local_port"], "operation": said["method"], "target": target,
            "status": str(said["response_code"]), "response_bytes": said["size_header"] + received,
            "attributes": {
                "http.request.body.size": sent or None, "http.response.body.size": received,
                "url.path": target.split("?")[0], "server.address": "127.0.0.1", "server.port": port,
            },
        })


# Of each transfer, on standard error.
SAY = "-o /dev/null -w %{stderr}%{json}\\n"


def nginx(log, file):
    client = Client(log, NGINX)
    for target in ("/", "/index.html", "/none", "/echo/a?b=c", "/old/", "/gone/", "/empty/", "/big.bin"):
        for method in ("GET", "HEAD"):
            client.ask(method, target)
    client.ask("POST", "/index.html", body=b"not allowed")
    client.ask("DELETE", "/index.html")
    client.ask("OPTIONS", "/echo/")
    client.ask("GET", "/text.txt", "Accept-Encoding: gzip")
    client.ask("GET", "/big.bin", "Range: bytes=1000-4999")
    client.ask("GET", "/big.bin", "Range: bytes=10000000-")
    client.ask("GET", "/", "If-Modified-Since: Sun, 22 Nov 2099 12:00:00 GMT")
    client.ask("GET", "/echo/" + "long" * 500)
    client.ask("POST", "/echo/", chunks=(b"one", b"two" * 1000, b"three"))
    client.ask("POST", "/echo/", body=b"x" * 50_000)
    client.pipeline(*[(("GET", "HEAD")[index % 2], f"/echo/{index}") for index in range(24)])
    client.pipeline(("GET", "/big.bin"), ("HEAD", "/big.bin"), ("GET", "/none"), ("GET", "/text.txt"))
    client.ask("GET", "/close/")
    client.close()

    client = Client(log, NGINX)
    client.ask_first("/behind/upload", b"x" * 3_000, True)
    client.ask_first("/echo/nobody-reads-it", b"x" * 3_000, True)
    client.close()
    client = Client(log, NGINX)
    client.ask_first("/behind/too-large", b"x" * 200_000, False)
    client.close()

    for version, headers in (("1.0", ()), ("1.0", ("Connection: keep-alive",)), ("1.1", ("Connection: close",))):
        client = Client(log, NGINX)
        client.ask("GET", "/index.html", *headers, version=version)
        client.close()

    # What is no request is answered all the same.
    client = Client(log, NGINX)
    client.ask("GET", "/echo/then", "Transfer-Encoding: none")
    client.close()

    curl(log, NGINX, SAY, "$/ --next", SAY, "-I $/index.html --next", SAY, "-d a=1&b=2 $/behind/form --next",
         SAY, "-X PATCH -d x $/behind/form --next", SAY, "$/echo/?q=boots&page=2")
    curl(log, NGINX, SAY, f"-T {file} $/behind/big.bin")


def python(log):
    client = Client(log, PYTHON)
    for length in (0, 1, 5_000):
        client.ask("POST", f"/behind/{length}", body=b"y" * length)
    client.ask("GET", "/chunks/12")
    client.ask("HEAD", "/chunks/12")
    client.ask("GET", "/early")
    client.ask("GET", "/until-closed")
    client.close()
    client = Client(log, PYTHON)
    client.ask("PURGE", "/behind/")
    client.close()

    # Whoever asks for a tunnel asks somebody else in it.
    client = Client(log, PYTHON)
    client.ask("CONNECT", "127.0.0.1:1")
    client.ask("CONNECT", f"127.0.0.1:{NGINX}")
    client.ask("GET", "/echo/in-a-tunnel")
    client.pipeline(("HEAD", "/"), ("GET", "/gone/"))
    client.close()


class Handler(http.server.BaseHTTPRequestHandler):
    """Does what nginx does not."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        if length := self.headers["Content-Length"]:
            return self.rfile.read(int(length))
        return b""

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.answer(201, b"%d bytes" % len(self.body()))

    do_PUT = do_PATCH = do_POST

    def do_GET(self):
        if self.path == "/early":
            self.send_response_only(103)
            self.send_header("Link", "</style.css>; rel=preload")
            self.end_headers()
            return self.answer(200, b"late")
        self.send_response(200)
        if self.path == "/until-closed":
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"z" * 20_000)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.command == "HEAD":
            return
        for number in range(12):
            self.wfile.write(b"%x;name=value\r\n%s\r\n" % (number * 100 + 1, b"c" * (number * 100 + 1)))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    do_HEAD = do_GET

    def do_CONNECT(self):
        host, port = self.path.split(":")
        try:
            far = socket.create_connection((host, int(port)))
        except OSError:
            return self.answer(502, b"nobody there")
        self.send_response_only(200)
        self.end_headers()
        back = threading.Thread(target=pass_on, args=(far, self.connection))
        back.start()
        pass_on(self.connection, far)
        back.join()
        self.close_connection = True


def pass_on(source, sink):
    while more := source.recv(65536):
        sink.sendall(more)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


async def websocket(log):
    """Messages there and back, as websockets sends them: masked, deflated where both want it."""

    async def serve(connection):
        with contextlib.suppress(websockets.ConnectionClosedError):
            async for message in connection:
                for _ in range(int(message[:1])):
                    await connection.send(message)

    async with websockets.serve(serve, "127.0.0.1", WEBSOCKET, ping_interval=None):
        for compression, code, messages in (
            (None, 1000, ["1 short", "2 twice", b"0 not answered", "3" + "long" * 1_000]),
            ("deflate", 4001, ["1" + "x" * 20_000, b"2" + bytes(range(256)) * 300]),
        ):
            url = f"ws://127.0.0.1:{WEBSOCKET}/chat"
            async with websockets.connect(url, compression=compression, ping_interval=None) as connection:
                port = connection.local_address[1]
                received = 0
                for message in messages:
                    await connection.send(message)
                    for _ in range(int(message[:1])):
                        assert await connection.recv() == message
                        received += 1
                await (await connection.ping())
                await connection.close(code)
            log.append({"port": port, "operation": "GET", "target": "/chat", "status": "101"})
            log.append({
                "port": port, "protocol": "websocket", "operation": "SESSION", "status": str(code),
                "attributes": {
                    "weir.websocket.sent_messages": len(messages),
                    "weir.websocket.received_messages": received,
                },
            })


def main():
    alone()
    behind = http.server.ThreadingHTTPServer(("127.0.0.1", PYTHON), Handler)
    threading.Thread(target=behind.serve_forever, daemon=True).start()
    with temporary() as folder:
        www = folder / "www"
        www.mkdir()
        (www / "index.html").write_text("hello\n")
        (www / "text.txt").write_text("the same line again\n" * 400)
        (www / "big.bin").write_bytes(bytes(range(256)) * 300)
        (folder / "conf").write_text(NGINX_CONF)
        with server(NGINX, "nginx", "-p", folder, "-c", folder / "conf", "-e", "stderr"):
            with capture("nginx", NGINX) as log:
                nginx(log, www / "big.bin")
            with capture("python", PYTHON) as log:
                python(log)
    with capture("websocket", WEBSOCKET) as log:
        asyncio.run(websocket(log))


main()
