import asyncio
import json
import sys


async def handle(reader, writer):
    while True:
        line = await reader.readline()
        if not line:
            break
        doc = json.loads(line)
        writer.write(json.dumps({"items": len(doc["items"])}).encode() + b"\n")
        await writer.drain()
    writer.close()


async def main():
    server = await asyncio.start_server(handle, "127.0.0.1", int(sys.argv[1]), limit=2**20)
    async with server:
        await server.serve_forever()


asyncio.run(main())
