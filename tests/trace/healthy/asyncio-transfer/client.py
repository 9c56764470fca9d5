import asyncio, sys


async def main():
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    for _ in range(40):
        writer.write(bytes(100_000))
        await writer.drain()
    writer.write_eof()
    print(await reader.read())
    writer.close()


asyncio.run(main())
