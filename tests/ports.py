"""Ports on loopback for the servers that tests start."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress

# Below 32,768, where Linux begins to hand out ports by itself, and above Ray's own worker ports: nothing else takes
# one between its choice and the server's start. The room is shared out among the processes that run tests.
FIRST, PARTNER, ROOM = 20_000, 10_000, 2_700
PROCESSES = 9


def _candidates() -> Iterator[int]:
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PROCESSES
    room = ROOM // PROCESSES
    while True:
        yield from range(FIRST + process * room, FIRST + (process + 1) * room)


_CANDIDATES = _candidates()


def _is_free(port: int) -> bool:
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, nor on their partners 10,000 above, which SeaweedFS uses for gRPC."""
    ports: list[int] = []
    while len(ports) < count:
        port = next(_CANDIDATES)
        if _is_free(port) and _is_free(port + PARTNER):
            ports.append(port)
    return ports
