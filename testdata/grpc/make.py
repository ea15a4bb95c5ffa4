"""Calls a gRPC server and writes down how each call went.

    python3 make.py PORT > calls.jsonl

while `tcpdump -w` captures on `lo`. Needs grpcio, which serves and calls. Each line has what
crates/weir/tests/made_captures.rs compares: the method, the status, and how many
messages were sent and received.
"""

import json
import sys
import time
from concurrent import futures

import grpc

ADDRESS = "127.0.0.1:" + sys.argv[1]
log = []


def as_it_is(message):
    return message


def get(request, context):
    if request == b"missing":
        context.abort(grpc.StatusCode.NOT_FOUND, "no user 'bob'")
    if request == b"slow":
        time.sleep(2)
    return request * 2


def watch(request, context):
    for _ in range(4):
        yield request


def upload(requests, context):
    return b"".join(requests)[:100]


def chat(requests, context):
    yield from requests


class Shop(grpc.GenericRpcHandler):
    def service(self, call):
        kinds = {
            "Get": (grpc.unary_unary_rpc_method_handler, get),
            "Watch": (grpc.unary_stream_rpc_method_handler, watch),
            "Upload": (grpc.stream_unary_rpc_method_handler, upload),
            "Chat": (grpc.stream_stream_rpc_method_handler, chat),
        }
        kind = kinds.get(call.method.rpartition("/")[2])
        return kind and kind[0](kind[1], as_it_is, as_it_is)


def note(method, sent, call):
    received = 0
    try:
        answer = call()
        received = len(answer) if isinstance(answer, list) else 1
        status = "OK"
    except grpc.RpcError as error:
        status = error.code().name
    log.append({"operation": method, "status": status, "sent": sent, "received": received})


def main():
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Shop(),))
    server.add_insecure_port(ADDRESS)
    server.start()
    with grpc.insecure_channel(ADDRESS) as channel:
        unary = channel.unary_unary("/shop.Users/Get", as_it_is, as_it_is)
        stream = channel.unary_stream("/shop.Users/Watch", as_it_is, as_it_is)
        load = channel.stream_unary("/shop.Users/Upload", as_it_is, as_it_is)
        both = channel.stream_stream("/shop.Users/Chat", as_it_is, as_it_is)
        none = channel.unary_unary("/shop.Users/None", as_it_is, as_it_is)
        name = "/shop.Users/"
        metadata = (("authorization", "Bearer secret"), ("trace-bin", b"\0\1\2"))
        for size in (0, 1, 100, 40_000):
            note(name + "Get", 1, lambda: unary(b"x" * size, metadata=metadata))
        note(name + "Get", 1, lambda: unary(b"missing"))
        note(name + "None", 1, lambda: none(b""))
        note(name + "Get", 1, lambda: unary(b"x" * 3_000, compression=grpc.Compression.Gzip))
        note(name + "Watch", 1, lambda: list(stream(b"x")))
        note(name + "Upload", 5, lambda: load(iter([b"", b"y"] + [b"x" * 9_000] * 3)))
        note(name + "Chat", 3, lambda: list(both(iter([b"x", b"y" * 20_000, b""]))))
        note(name + "Get", 1, lambda: unary(b"slow", timeout=0.2))
    server.stop(0).wait()
    for entry in log:
        print(json.dumps(entry))


main()
