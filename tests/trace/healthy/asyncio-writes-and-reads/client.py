import asyncio
import sys


async def write(w):
    for _ in range(200):
        w.write(b"Hello World " * 5000)
        await w.drain()
    w.write_eof()


async def main():
    r, w = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    _, data = await asyncio.gather(write(w), r.read())
    print(len(data))
    w.close()


asyncio.run(main())
