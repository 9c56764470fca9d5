import sys
import asyncio
async def main():
    r, w = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    block = b"Hello World " * 5000
    for _ in range(700):
        w.write(block); await w.drain()
    w.write_eof()
    print(len(await r.read()))
    w.close()
asyncio.run(main())
