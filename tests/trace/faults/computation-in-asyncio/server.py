import asyncio, hashlib, sys


async def handle(reader, writer):
    while line := await reader.readline():
        if line == b"hash\n":
            line = hashlib.pbkdf2_hmac("sha256", b"x", b"salt", 5_000_000).hex().encode() + b"\n"
        writer.write(line)
        await writer.drain()
    writer.close()


async def main():
    async with await asyncio.start_server(handle, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()


asyncio.run(main())
