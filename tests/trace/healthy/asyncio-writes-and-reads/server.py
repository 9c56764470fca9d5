import sys
import asyncio
async def handle(r, w):
    n = 0
    while d := await r.read(65536):
        n += len(d)
        w.write(d.swapcase())
        await w.drain()
    w.close()
async def main():
    s = await asyncio.start_server(handle, "127.0.0.1", int(sys.argv[1]))
    async with s: await s.serve_forever()
asyncio.run(main())
