"""Five writes of 512 bytes: a stream doesn't preserve their boundaries, datagrams do.

Run it:
    python examples/boundaries.py
"""

import queue

from bothends import connect, serve
from bothends.events import Event, Received

for endpoint in ("tcp://127.0.0.1:0", "udp://127.0.0.1:0"):
    arrived = queue.SimpleQueue[Event]()
    server = serve("discard", endpoint, observe=arrived.put)  # bound, but nothing reads yet
    with connect(server.endpoints[0]) as connection:
        for _ in range(5):
            connection.send(b"x" * 512)
    sizes: list[int] = []
    with server:  # from here on it reads
        while sum(sizes) < 5 * 512:
            event = arrived.get(timeout=10)
            sizes += [len(event.data)] if isinstance(event, Received) else []
    print(f"{endpoint[:3]}: five writes of 512 bytes, read as {sizes}")
