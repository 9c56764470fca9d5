import asyncio, sys

PRICES = {b"apple": 3, b"pear": 4}


async def serve(reader, writer):
    async for line in reader:
        writer.write(b"%d\n" % PRICES.get(line.strip(), 0))
        await writer.drain()
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
