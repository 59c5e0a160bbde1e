"""Load on a service until it refuses connections; the last line says what was lost.

Runs inside a container. A request counts once its connection is established: from then
on nothing but a whole response is right, where the connection is new as where it is
kept.
"""

import collections
import json
import socket
import sys
import threading
import time

WANTED = b'{"message":"Hello World from Flask"}\n'
REQUEST = b"GET / HTTP/1.1\r\nHost: load\r\n"

counts = collections.Counter()
lost = []


def answer(connection):
    """Whether the connection will be kept, after one whole response."""
    received = b""
    while not received.endswith(WANTED):
        part = connection.recv(4096)
        if not part:
            raise EOFError(f"ended after {received!r}")
        received += part
    if not received.startswith(b"HTTP/1.1 200 "):
        raise ValueError(received)
    return b"connection: close" not in received.lower()


def load(address, kind):
    end = b"\r\n" if kind == "kept" else b"Connection: close\r\n\r\n"
    while True:
        with socket.socket() as connection:
            connection.settimeout(0.5)
            try:
                connection.connect(address)
            except OSError:
                return
            connection.settimeout(10)
            try:
                again = True
                while again:
                    connection.sendall(REQUEST + end)
                    again = answer(connection)
                    counts[kind] += 1
                counts[f"{kind} closed"] += 1
            except (OSError, EOFError, ValueError) as error:
                lost.append(f"{kind}: {error!r}")


host, each = sys.argv[1], int(sys.argv[2])
threads = [
    threading.Thread(target=load, args=((host, 8080), kind))
    for kind in ("kept", "new")
    for _ in range(each)
]
for thread in threads:
    thread.start()
while min(counts["kept"], counts["new"]) < 10 and threads[0].is_alive():
    time.sleep(0.01)
print("under load", flush=True)
for thread in threads:
    thread.join()
print(json.dumps({"lost": lost, **counts}))
