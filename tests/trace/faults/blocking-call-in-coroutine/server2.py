import asyncio
import sys
import urllib.request


def fetch_stock(item):
    with urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/stock/{item}", timeout=10) as r:
        return r.read()


async def serve(reader, writer):
    try:
        while line := await reader.readline():
            words = line.decode().split()
            if words[0] == "PING":
                writer.write(b"PONG\n")
            elif words[0] == "STOCK":
                writer.write(fetch_stock(words[1]) + b"\n")
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[2]))
    async with server:
        await server.serve_forever()


asyncio.run(main())
