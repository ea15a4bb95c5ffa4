"""Talks to a PostgreSQL server and writes down what was asked and what came back.

    python3 make.py

Needs PostgreSQL and the Python package psycopg[binary] (3.1 or newer). See ../capture.py.
"""

import contextlib
import os
import pathlib
import select
import socket
import subprocess
import sys

import psycopg

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
from capture import alone, capture, server, temporary, wait_until

PORT = 5432
# It refuses to run as root.
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
PROGRAMS = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))[-1]


def address(**options):
    """Where the server is, and as whom to go there."""
    usual = {"dbname": "shop", "password": "sesame", "sslmode": "disable", "gssencmode": "disable"}
    return psycopg.conninfo.make_conninfo("", host="127.0.0.1", port=PORT, user="shop", **usual | options)


def port(descriptor):
    """The client's own."""
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        return copy.getsockname()[1]


class Client:
    """A connection whose statements are noted."""

    def __init__(self, log, sslmode="disable", **options):
        self.log = log
        self.connection = psycopg.connect(address(sslmode=sslmode), autocommit=True, **options)
        self.port = port(self.connection.fileno())
        if sslmode == "prefer":
            # The server has no certificate.
            self.note(operation="SSLREQUEST", status="N")
        self.note(operation="STARTUP", target="shop", status="OK", ok=True, attributes={"user.name": "shop"})

    def note(self, **entry):
        self.log.append({"port": self.port} | entry)
        return self.log[-1]

    def run(self, sql, values=None, shown=None, **options):
        """A statement, what became of it, and its rows."""
        entry = self.note(operation=sql.split()[0].upper(), target=shown or sql, status="OK", ok=True, attributes={})
        try:
            cursor = self.connection.cursor(binary=options.pop("binary", False))
            cursor.execute(sql, values, **options)
            self.count(entry, cursor)
            return cursor
        except psycopg.Error as error:
            entry |= {"status": error.sqlstate, "ok": False}
            entry["attributes"] = {"db.response.status_code": error.sqlstate, "error.type": error.sqlstate}

    def count(self, entry, cursor):
        """Rows that came back, or were changed."""
        total = {"db.response.returned_rows": 0, "weir.db.affected_rows": 0}
        while True:
            if cursor.description:
                total["db.response.returned_rows"] += len(cursor.fetchall())
            elif cursor.statusmessage and cursor.statusmessage[-1].isdigit():
                total["weir.db.affected_rows"] += cursor.rowcount
            if not cursor.nextset():
                break
        for name, value in total.items():
            if value:
                entry["attributes"][name] = value

    def close(self):
        self.connection.close()


def refused(log, status, **options):
    """A connection that the server does not want."""
    connection = psycopg.pq.PGconn.connect_start(address(**options).encode())
    own = port(connection.socket)
    while (state := connection.connect_poll()) != psycopg.pq.PollingStatus.FAILED:
        reads = state == psycopg.pq.PollingStatus.READING
        select.select([connection.socket] if reads else [], [] if reads else [connection.socket], [])
    database = options.get("dbname", "shop")
    log.append({"port": own, "operation": "STARTUP", "target": database, "status": status, "ok": False})


def simple(log):
    """One message each: SQL and nothing else."""
    client = Client(log, sslmode="prefer")
    client.run("CREATE TABLE orders (id int PRIMARY KEY, name text, note bytea)")
    client.run(
        "INSERT INTO orders VALUES (1, 'one', NULL), (2, 'sesame''s', '\\x00ff')",
        shown="INSERT INTO orders VALUES (?, ?, NULL), (?, ?, ?)",
    )
    client.run("SELECT id, name, note FROM orders")
    client.run("SELECT id FROM orders WHERE name = 'none'", shown="SELECT id FROM orders WHERE name = ?")
    client.run("UPDATE orders SET name = $$more$$", shown="UPDATE orders SET name = ?")
    client.run("INSERT INTO orders VALUES (1)", shown="INSERT INTO orders VALUES (?)")
    client.run("SELECT nothing FROM orders")
    client.run("SELEC")
    client.run("select id from orders; delete from orders where id = 2; select name from orders",
               shown="select id from orders; delete from orders where id = ?; select name from orders")
    client.log[-1]["attributes"]["db.operation.batch.size"] = 3
    client.run("SELECT n, n % 7 FROM generate_series(1, 2000) AS n",
               shown="SELECT n, n % ? FROM generate_series(?, ?) AS n")
    client.run("SELECT repeat('long', 50000)", shown="SELECT repeat(?, ?)")
    # Of so long a statement weir reads the beginning only.
    client.run("INSERT INTO orders VALUES (4, '%s')" % ("note" * 9_000), shown="INSERT INTO orders VALUES (?, ?…")
    client.log[-1]["capture"] = "truncated"
    client.run("DO $$ BEGIN RAISE NOTICE 'a secret'; END $$", shown="DO ?")
    client.run("SET statement_timeout = 50", shown="SET statement_timeout = ?")
    client.run("SELECT pg_sleep(10)", shown="SELECT pg_sleep(?)")
    client.run("RESET statement_timeout")
    client.run("BEGIN")
    client.run("SELECT 1/0", shown="SELECT ?/?")
    client.run("SELECT id FROM orders")
    client.run("COMMIT")
    client.log[-1] |= {"status": "ROLLBACK", "ok": False}
    client.run("BEGIN")
    client.run("DECLARE pages CURSOR FOR SELECT n FROM generate_series(1, 25) AS n",
               shown="DECLARE pages CURSOR FOR SELECT n FROM generate_series(?, ?) AS n")
    for _ in range(3):
        client.run("FETCH 10 FROM pages", shown="FETCH ? FROM pages")
    client.run("COMMIT")
    client.run("LISTEN news")
    client.run("NOTIFY news, 'a secret'", shown="NOTIFY news, ?")
    client.close()
    refused(log, "28P01", password="wrong")
    refused(log, "3D000", dbname="none")


def extended(log):
    """Statements with values of their own, prepared by name and not."""
    client = Client(log, prepare_threshold=None)
    for number in (11, 12):
        client.run("INSERT INTO orders VALUES (%s, %s, %s)", (number, "sesame", b"\0" * number),
                   shown="INSERT INTO orders VALUES ($1, $2, $3)")
    select = "SELECT id, name FROM orders WHERE id > %s"
    for binary in (False, True):
        client.run(select, (3,), shown=select.replace("%s", "$1"), binary=binary)
    client.run(select, ("no number",), shown=select.replace("%s", "$1"))
    for number in range(4):
        client.run(select, (number,), shown=select.replace("%s", "$1"), prepare=True)
    client.run("SELECT id FROM orders WHERE name = %s AND id < 100", ("none",), prepare=True,
               shown="SELECT id FROM orders WHERE name = $1 AND id < ?")
    client.run("SELECT n FROM generate_series(1, %s) AS n", (3_000,), prepare=True,
               shown="SELECT n FROM generate_series(?, $1) AS n")
    client.run("SELECT 1 / %s::int", (0,), prepare=True, shown="SELECT ? / $1::int")
    client.run("UPDATE orders SET name = %s", ("x" * 40_000,), shown="UPDATE orders SET name = $1")

    # Many before the first answer.
    sql = "SELECT n FROM generate_series(1, %s) AS n"
    with client.connection.pipeline():
        asked = []
        for number in range(30):
            entry = client.note(operation="SELECT", target="SELECT n FROM generate_series(?, $1) AS n", status="OK",
                                attributes={})
            asked.append((entry, client.connection.execute(sql, (number,), prepare=number > 20)))
        for entry, cursor in asked:
            client.count(entry, cursor)
    client.close()


def copies(log):
    client = Client(log)
    client.run("CREATE TABLE copied (id int, name text)")
    cursor = client.connection.cursor()
    for sql, lines in (
        ("COPY copied FROM STDIN", [f"{number}\tname {number}\n" for number in range(1_500)]),
        ("COPY copied (id) FROM STDIN", []),
        ("COPY copied FROM STDIN", ["no number\tsesame\n"]),
    ):
        entry = client.note(operation="COPY", target=sql, status="OK", attributes={})
        try:
            with cursor.copy(sql) as copy:
                for line in lines:
                    copy.write(line)
            if cursor.rowcount:
                entry["attributes"]["weir.db.affected_rows"] = cursor.rowcount
        except psycopg.Error as error:
            entry |= {"status": error.sqlstate, "ok": False}
    for sql in ("COPY copied TO STDOUT", "COPY (SELECT id FROM copied LIMIT 7) TO STDOUT (FORMAT binary)"):
        entry = client.note(operation="COPY", target=sql.replace("7", "?"), status="OK", attributes={})
        with cursor.copy(sql) as copy:
            assert sum(len(part) for part in copy)
        entry["attributes"]["weir.db.affected_rows"] = cursor.rowcount
    with contextlib.suppress(ZeroDivisionError):
        entry = client.note(operation="COPY", target="COPY copied FROM STDIN", status="57014", ok=False)
        with cursor.copy("COPY copied FROM STDIN") as copy:
            copy.write("1\tone\n")
            raise ZeroDivisionError
    client.run("SELECT count(*) FROM copied")
    client.run("DROP TABLE copied")
    client.close()


def answers():
    """Whether the server has started: it listens before."""
    try:
        psycopg.connect(address(dbname="postgres")).close()
    except psycopg.OperationalError:
        return False
    return True


def main():
    alone()
    with temporary() as folder:
        data, password = folder / "data", folder / "password"
        password.write_text("sesame")
        subprocess.run(
            [*NOBODY, PROGRAMS / "initdb", "--auth=scram-sha-256", "--username=shop", f"--pwfile={password}",
             "--no-sync", "--encoding=UTF8", "--locale=C", "-D", data],
            check=True, stdout=subprocess.DEVNULL,
        )
        postgres = [*NOBODY, PROGRAMS / "postgres", "-D", data, "-h", "127.0.0.1", "-k", folder, "-c", "fsync=off"]
        with server(PORT, *postgres):
            wait_until("PostgreSQL's first answer", answers)
            with psycopg.connect(address(dbname="postgres"), autocommit=True) as first:
                first.execute("CREATE DATABASE shop")
            for name, talk in (("simple", simple), ("extended", extended), ("copies", copies)):
                with capture(name, PORT) as log:
                    talk(log)


main()
