"""An asyncio client: many connections at once, in one thread.

Run it:
    bothends serve upper tcp://:12000
    python examples/ask_many.py tcp://127.0.0.1:12000 one two three
"""

import asyncio
import sys

from bothends.client.asyncio import connect


async def ask(endpoint: str, word: str) -> str:
    async with connect(endpoint) as connection:
        return (await connection.request(word)).decode()


async def main(endpoint: str, *words: str) -> None:
    print(*await asyncio.gather(*(ask(endpoint, word) for word in words)))


asyncio.run(main(*sys.argv[1:]))
