import asyncio, sys


async def main():
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    writer.write(b"ping")
    await writer.drain()
    print(await reader.readline())


asyncio.run(main())
