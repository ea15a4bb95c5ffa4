"""Talks to a MariaDB server and writes down what was asked and what came back.

    python3 make.py PORT USER PASSWORD [compress] > plain.jsonl

while `tcpdump -w` captures on `lo`. Needs a database `shop` and mysql-connector-python. Each
line has what crates/weir/tests/made_captures.rs compares: the operation, `OK` or
the number of the error, and rows that came back or were changed.
"""

import json
import sys

import mysql.connector
from mysql.connector import errors
from mysql.connector.connection import MySQLConnection

PORT, USER, PASSWORD = int(sys.argv[1]), sys.argv[2], sys.argv[3]
COMPRESS = "compress" in sys.argv

NAMES = {
    0x02: "INIT DB", 0x0E: "PING", 0x11: "CHANGE USER", 0x16: "PREPARE",
    0x1A: "RESET STATEMENT", 0x1B: "SET OPTION", 0x1F: "RESET CONNECTION",
}
SILENT = (0x01, 0x18, 0x19)
log = []
prepared = {}


class Logged(MySQLConnection):
    """Notes every command as it is sent, and how it went."""

    def _send_cmd(self, command, argument=None, *args, **kwargs):
        if command not in SILENT:
            log.append({"operation": self._operation(command, argument or kwargs.get("packet")), "status": "OK"})
        return super()._send_cmd(command, argument, *args, **kwargs)

    def cmd_statistics(self):
        log.append({"operation": "STATISTICS", "status": "OK"})
        return super().cmd_statistics()

    def _operation(self, command, argument):
        if command == 0x17:
            return prepared[int.from_bytes(argument[:4], "little")]
        if command == 0x03:
            return first_word(argument)
        return NAMES[command]

    def cmd_stmt_prepare(self, statement, **kwargs):
        result = super().cmd_stmt_prepare(statement, **kwargs)
        prepared[result["statement_id"]] = first_word(statement)
        return result


def first_word(sql):
    return bytes(sql).lstrip(b"\x00\x01").split()[0].decode().upper()


def run(cursor, sql, values=()):
    try:
        cursor.execute(sql, values)
        if cursor.description:
            log[-1]["rows"] = len(cursor.fetchall())
        else:
            log[-1]["affected"] = cursor.rowcount
    except errors.Error as error:
        log[-1]["status"] = str(error.errno)


def main():
    log.append({"operation": "LOGIN", "status": "OK"})
    connection = Logged(
        host="127.0.0.1", port=PORT, user=USER, password=PASSWORD, database="shop",
        ssl_disabled=True, compress=COMPRESS, allow_local_infile=True,
    )
    cursor = connection.cursor()
    run(cursor, "CREATE TABLE orders (id INT PRIMARY KEY, name VARCHAR(40), note LONGTEXT)")
    run(cursor, "INSERT INTO orders VALUES (1, 'one', ''), (2, 'two', ''), (3, 'three', NULL)")
    run(cursor, "SELECT id, name, note FROM orders")
    run(cursor, "SELECT id FROM orders WHERE name = 'none'")
    run(cursor, "UPDATE orders SET name = 'more' WHERE id > 1")
    run(cursor, "INSERT INTO orders VALUES (1, 'again', '')")
    run(cursor, "SELECT nothing FROM orders")
    run(cursor, "SELECT seq, MD5(seq) FROM seq_1_to_300")
    run(cursor, "SELECT REPEAT('long', 30000)")
    run(cursor, "INSERT INTO orders VALUES (4, 'long', '%s')" % ("note" * 9000))
    connection.ping()
    for number in range(3):
        with connection.cursor(prepared=True) as execution:
            for value in range(2):
                run(execution, "SELECT id FROM orders WHERE id > ? AND id < %d" % (number + 2), (value,))
    with connection.cursor(prepared=True) as execution:
        run(execution, "INSERT INTO orders VALUES (?, ?, ?)", (9, "nine", "note"))
    cursor = connection.cursor()
    run(cursor, "DELETE FROM orders")
    run(cursor, "DROP TABLE orders")
    connection.cmd_statistics()
    connection.close()
    for entry in log:
        print(json.dumps(entry))


main()
