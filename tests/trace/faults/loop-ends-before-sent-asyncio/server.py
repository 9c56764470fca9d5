import asyncio, os, sys
BODY = b"r" * 15_000_000
async def main():
    done = asyncio.Event()
    async def handle(r, w):
        await r.readuntil(b"\r\n\r\n")
        w.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
        w.close()
        done.set()
    s = await asyncio.start_server(handle, "127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(s.sockets[0].getsockname()[1], flush=True)
    await done.wait()
asyncio.run(main())
