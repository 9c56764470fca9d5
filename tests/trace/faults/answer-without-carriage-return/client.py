import sys
import asyncio
async def main():
    r, w = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    print(await r.readuntil(b"\r\n"))
    for c in ("USER bob", "STAT", "QUIT"):
        w.write(c.encode() + b"\r\n")
        print(c, await r.readuntil(b"\r\n"))
asyncio.run(main())
