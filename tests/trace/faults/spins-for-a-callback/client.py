import asyncio
import sys


class Lookup(asyncio.Protocol):
    answer = None

    def connection_made(self, transport):
        transport.write(b"where is 7?\n")

    def data_received(self, data):
        self.answer = data


async def main():
    _, lookup = await asyncio.get_running_loop().create_connection(Lookup, "127.0.0.1", int(sys.argv[1]))
    while lookup.answer is None:
        pass
    print(lookup.answer)


asyncio.run(main())
