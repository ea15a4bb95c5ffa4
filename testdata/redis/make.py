"""Talks to a Redis server and writes down what was asked and what came back.

    python3 make.py

Needs redis-server. See ../capture.py.
"""

import pathlib
import socket
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from capture import alone, capture, server, temporary

PORT = 6379
# What weir calls answers that are no errors and no words of the server.
NAMES = {
    b"+": "string", b"$": "string", b":": "integer", b"*": "array", b"%": "map", b"~": "set", b",": "double",
    b"#": "boolean", b"(": "big number", b"=": "verbatim string", b"_": "nil", b">": "push",
}


class Key(str):
    """What a record shows of a command beside its name."""


class Client:
    """One connection, and what was said on it, to the byte."""

    def __init__(self, log):
        self.log = log
        self.socket = socket.create_connection(("127.0.0.1", PORT))
        self.port = self.socket.getsockname()[1]
        self.unread = b""
        self.database = "0"

    def request(self, name, *words):
        """A command's bytes; its entry in the log is not complete yet."""
        every = [*name.split(), *words]
        request = b"*%d\r\n" % len(every)
        for word in every:
            word = word if isinstance(word, bytes) else str(word).encode()
            request += b"$%d\r\n%s\r\n" % (len(word), word)
        keys = " ".join(word for word in words if isinstance(word, Key))
        self.log.append({
            "port": self.port, "operation": name, "target": keys or None, "request_bytes": len(request),
        })
        return request, self.log[-1]

    def exactly(self, count):
        while len(self.unread) < count:
            more = self.socket.recv(65536)
            assert more, "the server hung up"
            self.unread += more
        found, self.unread = self.unread[:count], self.unread[count:]
        return found

    def line(self):
        line = b""
        while not line.endswith(b"\r\n"):
            line += self.exactly(1)
        return line

    def value(self):
        """What comes next: its bytes, its kind, its text or its values."""
        line = self.line()
        kind, text, size = line[:1], line[1:-2], len(line)
        if kind in b"$=!" or kind in b"*%~>":
            count = int(text)
            if count < 0:
                return size, b"_", None
            if kind in b"$=!":
                return size + count + 2, kind, self.exactly(count + 2)[:-2]
            values = [self.value() for _ in range(count * 2 if kind == b"%" else count)]
            return size + sum(value[0] for value in values), kind, values
        return size, kind, text

    def answered(self, entry, *values):
        """Completes what was noted of a command."""
        _, kind, content = values[-1]
        entry["response_bytes"] = sum(size for size, _, _ in values)
        entry["ok"] = kind not in b"-!"
        if not entry["ok"]:
            entry["status"] = content.split()[0].decode()
        elif kind == b"+" and content in (b"OK", b"QUEUED", b"PONG", b"RESET", b"string", b"none"):
            entry["status"] = content.decode()
        else:
            entry["status"] = NAMES[kind]
        return content

    def ask(self, name, *words):
        request, entry = self.request(name, *words)
        self.socket.sendall(request)
        return self.answered(entry, self.value())

    def pipeline(self, *commands):
        """All commands before the first answer."""
        asked = [self.request(*command) for command in commands]
        self.socket.sendall(b"".join(request for request, _ in asked))
        return [self.answered(entry, self.value()) for _, entry in asked]

    def subscribe(self, name, *channels):
        """A command that has an answer for each channel."""
        request, entry = self.request(name, *channels)
        self.socket.sendall(request)
        self.answered(entry, *[self.value() for _ in range(max(1, len(channels)))])

    def pushed(self, operation, channel):
        """What the server says unasked."""
        size, kind, _ = self.value()
        self.log.append({
            "port": self.port, "matched": "no_request", "operation": operation, "target": channel,
            "status": NAMES[kind], "response_bytes": size,
        })

    def silent(self, name, *words):
        """A command that is not answered."""
        request, entry = self.request(name, *words)
        entry |= {"matched": "no_response", "status": None, "ok": None}
        self.socket.sendall(request)

    def typed(self, line, name, *keys):
        """A command as one types it: a line of text."""
        _, entry = self.request(name, *keys)
        entry["request_bytes"] = len(line)
        self.socket.sendall(line)
        return self.answered(entry, self.value())


def commands(client):
    """Of every kind of answer."""
    one, two, counter, members, fields = map(Key, ("one", "two", "count", "members", "fields"))
    client.ask("PING")
    client.ask("SET", one, "value of one")
    client.ask("GET", one)
    client.ask("GET", Key("none"))
    client.ask("SET", two, b"\x00\xff\r\n" * 5_000)
    client.ask("GET", two)
    client.ask("MSET", Key("a"), "1", Key("b"), "2", Key("c"), "3")
    client.ask("MGET", Key("a"), Key("b"), Key("none"), Key("c"))
    client.ask("INCR", counter)
    client.ask("INCRBYFLOAT", counter, "0.5")
    client.ask("INCR", one)
    client.ask("LPUSH", one, "of another type")
    client.ask("SADD", members, "x", "y", "z")
    client.ask("SMEMBERS", members)
    client.ask("SISMEMBER", members, "x")
    client.ask("HSET", fields, "name", "x", "age", "7")
    client.ask("HGETALL", fields)
    client.ask("HGET", fields, "none")
    client.ask("ZADD", Key("scores"), "1.5", "x", "2", "y")
    client.ask("ZSCORE", Key("scores"), "x")
    client.ask("ZRANGE", Key("scores"), "0", "-1", "WITHSCORES")
    client.ask("XADD", Key("events"), "*", "field", "value")
    client.ask("XLEN", Key("events"))
    client.ask("XINFO STREAM", Key("events"))
    client.ask("TYPE", one)
    client.ask("TYPE", Key("none"))
    client.ask("EXPIRE", one, "100")
    client.ask("DEL", one, two)
    client.ask("CONFIG GET", "maxmemory")
    client.ask("CLIENT ID")
    client.ask("EVAL", "return {1, 'x', redis.call('GET', KEYS[1])}", "1", Key("a"))
    client.ask("EVAL", "return redis.error_reply('MINE it is mine')", "0")
    client.ask("SET", one)
    client.ask("DEBUG", "JMAP")
    client.pipeline(*[("SET", Key(f"k{index}"), "v" * index) for index in range(30)])
    client.pipeline(*[("GET", Key(f"k{index}")) for index in range(30)])
    client.pipeline(("GET", counter), ("LPUSH", counter, "x"), ("HGETALL", fields), ("GET", Key("none")), ("PING",))


def transactions(client):
    client.ask("WATCH", Key("a"))
    client.ask("MULTI")
    client.ask("SET", Key("a"), "9")
    client.ask("INCR", Key("a"))
    client.ask("LPUSH", Key("a"), "x")
    client.ask("GET", Key("a"))
    client.ask("EXEC")
    # One of the commands failed, and so did the whole, for whoever audits it.
    failed(client)
    client.log[-1]["attributes"] = {"db.operation.batch.size": 4}
    client.pipeline(("MULTI",), ("INCR", Key("n")), ("INCR", Key("n")), ("EXEC",))
    client.log[-1]["attributes"] = {"db.operation.batch.size": 2}
    client.ask("MULTI")
    client.ask("SET", Key("a"))
    client.ask("EXEC")
    client.ask("MULTI")
    client.ask("GET", Key("a"))
    client.ask("DISCARD")


def failed(client):
    client.log[-1]["ok"] = False


def channels(log, version):
    client, other = Client(log), Client(log)
    if version == 3:
        client.ask("HELLO", "3")
    news, sport, pattern = map(Key, ("news", "sport", "s*"))
    client.subscribe("SUBSCRIBE", news, sport)
    client.subscribe("PSUBSCRIBE", pattern)
    other.ask("PUBLISH", news, "rain")
    client.pushed("message", "news")
    other.pipeline(("PUBLISH", news, "wind"), ("PUBLISH", sport, "goal" * 100))
    client.pushed("message", "news")
    client.pushed("message", "sport")
    client.pushed("pmessage", "sport")
    client.ask("PING")
    client.subscribe("UNSUBSCRIBE", news)
    client.subscribe("UNSUBSCRIBE", sport)
    client.subscribe("PUNSUBSCRIBE", pattern)
    client.ask("GET", Key("a"))


def resp2(log):
    client = Client(log)
    client.ask("AUTH", "sesame")
    client.ask("GET", Key("a"))
    client.ask("AUTH", "shop", "sesame")
    client.ask("ACL SETUSER", "shop", "on", ">sesame", "~*", "&*", "+@all")
    client.ask("AUTH", "shop", "sesame")
    client.ask("CONFIG SET", "requirepass", "sesame")
    stranger = Client(log)
    stranger.ask("GET", Key("a"))
    stranger.ask("AUTH", "sesame")
    stranger.ask("GET", Key("a"))
    client.ask("CONFIG SET", "requirepass", "")
    commands(client)
    transactions(client)
    client.ask("SELECT", "3")
    client.ask("SET", Key("elsewhere"), "x")
    client.log[-1]["attributes"] = {"db.namespace": "3"}
    client.silent("CLIENT REPLY", "OFF")
    client.silent("SET", Key("quiet"), "x")
    client.ask("CLIENT REPLY", "ON")
    client.ask("GET", Key("quiet"))
    client.ask("NO-SUCH-COMMAND", "sesame")
    # The server does not know it: it may be anything, a password too.
    client.log[-1]["operation"] = "?"
    typist = Client(log)
    typist.typed(b"PING\r\n", "PING")
    typist.typed(b"set  'typed' \"a value\"\r\n", "SET", Key("typed"))
    typist.typed(b"get typed\r\n", "GET", Key("typed"))
    typist.ask("GET", Key("typed"))
    channels(log, 2)


def resp3(log):
    client = Client(log)
    client.ask("HELLO", "3", "AUTH", "shop", "sesame", "SETNAME", "tester")
    commands(client)
    transactions(client)
    # What another one changes is told to whoever tracks it.
    client.ask("CLIENT TRACKING", "ON")
    client.ask("GET", Key("tracked"))
    other = Client(log)
    other.ask("SET", Key("tracked"), "x")
    client.pushed("invalidate", None)
    client.ask("CLIENT TRACKING", "OFF")
    client.ask("RESET")
    client.ask("GET", Key("a"))
    channels(log, 3)


def main():
    alone()
    with temporary() as folder:
        command = f"redis-server --port {PORT} --bind 127.0.0.1 --save '' --appendonly no --dir {folder}"
        with server(PORT, *command.replace("''", "").split(" ")):
            with capture("resp2", PORT) as log:
                resp2(log)
            with capture("resp3", PORT) as log:
                resp3(log)


main()
