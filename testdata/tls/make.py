"""Shakes hands with nginx and writes down what was agreed on.

    python3 make.py

Needs nginx, openssl and curl. See ../capture.py.
"""

import json
import pathlib
import socket
import ssl
import subprocess
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from capture import alone, capture, server, temporary

OLD, NEW, STRICT = 8441, 8442, 8443
NGINX_CONF = """
daemon off; master_process off; pid pid; error_log stderr;
events { }
http {
  access_log off; ssl_session_tickets off; ssl_session_cache shared:sessions:1m;
  ssl_certificate rsa.pem; ssl_certificate_key rsa.key;
  ssl_certificate ec.pem; ssl_certificate_key ec.key;
  server {
    listen 127.0.0.1:8441 ssl;
    ssl_protocols TLSv1 TLSv1.1 TLSv1.2; ssl_ciphers ALL:@SECLEVEL=0;
    location / { return 200 "old"; }
  }
  server {
    listen 127.0.0.1:8442 ssl http2;
    ssl_protocols TLSv1.2 TLSv1.3; ssl_ecdh_curve secp384r1;
    location / { return 200 "new"; }
  }
  server { listen 127.0.0.1:8443 ssl default_server; ssl_protocols TLSv1.3; ssl_reject_handshake on; }
  server { listen 127.0.0.1:8443 ssl; server_name known.test; return 204; }
}
"""
VERSIONS = {"TLSv1": "TLSv1.0"}


def standard_names():
    """IANA's names of ciphers by those of OpenSSL."""
    text = subprocess.check_output(["openssl", "ciphers", "-stdname", "ALL:@SECLEVEL=0"], text=True)
    return {line.split()[2]: line.split()[0] for line in text.splitlines()}


def client(least=ssl.TLSVersion.TLSv1, most=ssl.TLSVersion.TLSv1_3, ciphers="ALL", protocols=()):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = least, most
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def shake(log, port, context, name, protocols=(), alert=None, session=None):
    """One handshake, and a byte or two of what follows it."""
    plain = socket.create_connection(("127.0.0.1", port))
    entry = {
        "port": plain.getsockname()[1], "operation": "hello", "target": name, "ok": alert is None,
        "attributes": {
            "server.address": name, "weir.tls.offered_protocols": list(protocols) or None,
        },
    }
    log.append(entry)
    try:
        with context.wrap_socket(plain, server_hostname=name, session=session) as encrypted:
            version = VERSIONS.get(encrypted.version(), encrypted.version())
            entry["status"] = version
            chosen = encrypted.selected_alpn_protocol()
            entry["attributes"] |= {
                "tls.protocol.version": version.removeprefix("TLSv"),
                "tls.cipher": IANA[encrypted.cipher()[0]],
                # TLS 1.3 encrypts it.
                "tls.next_protocol": None if version == "TLSv1.3" else chosen,
            }
            if chosen != "h2":
                encrypted.sendall(b"GET / HTTP/1.0\r\n\r\n")
                while encrypted.recv(65536):
                    pass
            assert alert is None
            return encrypted.session
    except ssl.SSLError as error:
        assert alert, error
        entry |= {"status": alert}
        plain.close()


def python(log):
    version = ssl.TLSVersion
    for each in (version.TLSv1, version.TLSv1_1, version.TLSv1_2):
        shake(log, OLD, client(most=each), "shop.test")
    session = shake(log, OLD, client(most=version.TLSv1_2), None)
    context = client(most=version.TLSv1_2)
    session = shake(log, OLD, context, "again.test")
    shake(log, OLD, context, "again.test", session=session)
    shake(log, OLD, client(), "xn--bcher-kva.test")
    for ciphers in ("AES128-SHA", "ECDHE+CHACHA20", "AES256-GCM-SHA384", "ECDHE+AES256", "ECDHE+aRSA"):
        shake(log, OLD, client(most=version.TLSv1_2, ciphers=ciphers), "shop.test")

    # The server wants another curve than is offered first: a second hello.
    many = tuple("protocol-%03d" % number + "x" * 100 for number in range(14))
    for protocols in ((), ("http/1.1",), ("h2", "http/1.1"), (*many, "h2")):
        for most in (version.TLSv1_2, version.TLSv1_3):
            shake(log, NEW, client(most=most, protocols=protocols), "shop.test", protocols)

    shake(log, STRICT, client(), "known.test")
    # What does not come about.
    shake(log, STRICT, client(), "unknown.test", alert="unrecognized_name")
    shake(log, STRICT, client(most=version.TLSv1_2), "known.test", alert="protocol_version")
    shake(log, NEW, client(most=version.TLSv1_1), "shop.test", alert="protocol_version")
    # Which it has no parameters for.
    shake(log, OLD, client(most=version.TLSv1_2, ciphers="DHE"), "shop.test", alert="handshake_failure")
    suspicious = client(most=version.TLSv1_2)
    suspicious.verify_mode = ssl.CERT_REQUIRED
    shake(log, OLD, suspicious, "shop.test", alert="unknown_ca")


def others(log):
    """curl, and openssl on a connection of its own."""
    for words, name, protocols, version in (
        ("--http1.1", "curl.test", ["http/1.1"], "TLSv1.3"),
        ("--http2", "curl.test", ["h2", "http/1.1"], "TLSv1.3"),
        ("--http2 --tls-max 1.2", "curl.test", ["h2", "http/1.1"], "TLSv1.2"),
    ):
        told = subprocess.run(
            ["curl", "-sk", "-o", "/dev/null", "-w", "%{json}", "--resolve", f"{name}:{NEW}:127.0.0.1",
             *words.split(), f"https://{name}:{NEW}/"],
            check=True, capture_output=True,
        )
        log.append({
            "port": json.loads(told.stdout)["local_port"], "operation": "hello", "target": name,
            "status": version, "ok": True, "attributes": {"weir.tls.offered_protocols": protocols},
        })
    # No TLS at all, which the server answers all the same.
    with socket.create_connection(("127.0.0.1", OLD)) as plain:
        plain.sendall(b"GET /plain HTTP/1.0\r\n\r\n")
        answer = b""
        while more := plain.recv(65536):
            answer += more
        log.append({
            "port": plain.getsockname()[1], "protocol": "http", "operation": "GET", "target": "/plain",
            "status": answer.split()[1].decode(), "response_bytes": len(answer),
        })


def main():
    alone()
    with temporary() as folder:
        for name, key in (("rsa", ["rsa:2048"]), ("ec", ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"])):
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", *key, "-nodes", "-subj", "/CN=shop.test",
                 "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"],
                check=True, stderr=subprocess.DEVNULL,
            )
        (folder / "conf").write_text(NGINX_CONF)
        with server(OLD, "nginx", "-p", folder, "-c", folder / "conf", "-e", "stderr"):
            with capture("handshakes", OLD, NEW, STRICT) as log:
                python(log)
                others(log)


IANA = standard_names()
main()
