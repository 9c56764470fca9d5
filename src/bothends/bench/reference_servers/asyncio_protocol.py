"""asyncio's transports and protocols: a callback per chunk. `uvloop_protocol.py` runs it too."""

import asyncio
import sys
from typing import Any


class AsyncioUpper(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())


class AsyncioUpperDatagrams(asyncio.DatagramProtocol):
    """All datagrams of the socket."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.transport.sendto(data.upper(), addr)


async def main() -> None:
    """Serve the transport given on the command line."""
    loop = asyncio.get_running_loop()
    if sys.argv[1] == "udp":
        transport, _ = await loop.create_datagram_endpoint(AsyncioUpperDatagrams, ("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
    else:
        server = await loop.create_server(AsyncioUpper, "127.0.0.1", 0, backlog=4096)
        port = server.sockets[0].getsockname()[1]
    print(f"{sys.argv[1]}://127.0.0.1:{port}", flush=True)  # noqa: T201
    await loop.create_future()


if __name__ == "__main__":
    asyncio.run(main())
