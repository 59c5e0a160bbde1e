"""Steady load on an HTTP server, a process of its own; nothing is sent twice.

    python load.py HOST:PORT RATE CLIENTS NAME

Until its stdin ends. Half of the clients keep their connections, half make one for each
request; each sends a POST and a GET in turns, to an address that no other is sent to.
What is no whole answer with the status 200 is lost. stdout then has what was sent and
lost, in JSON; meanwhile it has how many were sent, a line for each look.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import sys
import time
from typing import Any

TIMEOUT = 10.0
"""Seconds for an answer, as a client's own patience."""


class Lost(Exception):
    """A request without an answer that is right; its text says why."""


class Client:
    """One of the clients, with a connection at most."""

    def __init__(self, load: Load, number: int) -> None:
        self.load = load
        self.name = f"{load.name}-{number}"
        self.keeps = number % 2 == 0
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def run(self, first: float, every: float) -> None:
        """Send a request each `every` seconds, or one after the other if late."""
        due, number = first, 0
        while not self.load.ended.is_set():
            await asyncio.sleep(max(0, due - time.monotonic()))
            # After a wait it does not make up for what it has missed.
            due = max(due + every, time.monotonic())
            number += 1
            await self.send("POST" if number % 2 else "GET", f"{self.name}-{number}")
        self.close()

    async def send(self, method: str, name: str) -> None:
        """Send a request that is known by its name, and note what becomes of it."""
        kind = f"{method} {'kept' if self.keeps else 'new'}"
        began = time.time()
        why, body = "", b""
        try:
            body = await asyncio.wait_for(self.exchange(method, name), TIMEOUT)
        except TimeoutError:
            why = f"no answer within {TIMEOUT:g} s"
        except asyncio.IncompleteReadError:
            why = "closed before an answer"
        except OSError as error:
            why = (error.strerror or str(error)).lower()
        except Lost as error:
            why = str(error)
        if why or not self.keeps:
            self.close()
        self.load.note(kind, name, began, why, body)

    async def exchange(self, method: str, name: str) -> bytes:
        if self.writer is None:
            host, port = self.load.address
            self.reader, self.writer = await asyncio.open_connection(host, port)
        assert self.reader is not None
        posts = method == "POST"
        lines = [f"{method} {'/count/' if posts else '/?'}{name} HTTP/1.1"]
        lines += ["Host: shop", *(["Content-Length: 0"] if posts else [])]
        lines += [] if self.keeps else ["Connection: close"]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = head.split(" ", 2)[1]
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        body = await self.reader.readexactly(int(fields.get("content-length", 0)))
        if fields.get("connection") == "close" and self.keeps:
            self.close()
        if status != "200":
            raise Lost(f"status {status}")
        return body

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


class Load:
    """All the clients, and what they have seen."""

    def __init__(self, address: str, name: str) -> None:
        host, _, port = address.rpartition(":")
        self.address = host, int(port)
        self.name = name
        self.ended = asyncio.Event()
        self.sent: collections.Counter[str] = collections.Counter()
        self.lost: list[dict[str, Any]] = []
        self.counted: list[str] = []
        self.versions: collections.Counter[str] = collections.Counter()
        self.seconds: list[float] = []

    def note(self, kind: str, name: str, began: float, why: str, body: bytes) -> None:
        now = time.time()
        self.sent[kind] += 1
        if why:
            self.lost.append(
                {"kind": kind, "name": name, "began": began, "ended": now, "why": why}
            )
            return
        self.seconds.append(now - began)
        self.versions[json.loads(body)["version"]] += 1
        if kind.startswith("POST"):
            self.counted.append(name)

    def quantile(self, part: float) -> float:
        """Milliseconds within which such a part of the answers came."""
        ordered = sorted(self.seconds) or [0.0]
        return round(1000 * ordered[int(part * (len(ordered) - 1))], 1)

    async def run(self, rate: float, clients: int) -> None:
        began = time.monotonic()
        every = clients / rate
        running = [
            asyncio.create_task(
                Client(self, number).run(began + number * every / clients, every)
            )
            for number in range(clients)
        ]
        end = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        try:
            while not end.done():
                await asyncio.wait([end], timeout=0.2)
                print(self.sent.total(), flush=True)
        finally:  # also if nobody reads any more
            self.ended.set()
        await asyncio.gather(*running)
        found = {
            "sent": self.sent, "lost": self.lost, "counted": self.counted,
            "versions": self.versions, "p50": self.quantile(0.5),
            "p99": self.quantile(0.99), "slowest": self.quantile(1),
        }  # fmt: skip
        print(json.dumps(found), flush=True)


def main() -> None:
    address, rate, clients, name = sys.argv[1:]
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(address, name, float(rate), int(clients)))


async def _main(address: str, name: str, rate: float, clients: int) -> None:
    await Load(address, name).run(rate, clients)


if __name__ == "__main__":
    main()
