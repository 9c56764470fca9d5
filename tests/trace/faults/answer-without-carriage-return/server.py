import sys
import asyncio
users = {"bob": "42", "eve": "7"}
async def handle(r, w):
    w.write(b"+OK ready\r\n"); await w.drain()
    while line := await r.readline():
        cmd, _, arg = line.decode().strip().partition(" ")
        if cmd == "USER": w.write(f"+OK {arg} known\r\n".encode() if arg in users else b"-ERR\r\n")
        elif cmd == "STAT": w.write(b"+OK 3 messages\n")
        elif cmd == "QUIT": break
        else: w.write(b"-ERR unknown\r\n")
        await w.drain()
    w.close()
async def main():
    s = await asyncio.start_server(handle, "127.0.0.1", int(sys.argv[1]))
    async with s: await s.serve_forever()
asyncio.run(main())
