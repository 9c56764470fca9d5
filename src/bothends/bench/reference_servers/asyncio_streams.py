"""asyncio's streams: a coroutine per connection, a line at a time."""

import asyncio


async def handle_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection."""
    try:
        while line := await reader.readline():
            writer.write(line.upper())
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main() -> None:
    """Serve TCP."""
    server = await asyncio.start_server(handle_client, "127.0.0.1", 0, backlog=4096)
    print(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)  # noqa: T201
    await server.serve_forever()


asyncio.run(main())
