"""trio: a task per connection, in a nursery."""

from functools import partial

import trio


async def handle_client(stream: trio.SocketStream) -> None:
    """One connection."""
    try:
        async for data in stream:
            await stream.send_all(data.upper())
    except trio.BrokenResourceError:
        pass


async def main() -> None:
    """Serve TCP."""
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, handle_client, 0, host="127.0.0.1", backlog=4096)
        listeners = await nursery.start(serve)
        print(f"tcp://127.0.0.1:{listeners[0].socket.getsockname()[1]}", flush=True)  # noqa: T201


trio.run(main)
