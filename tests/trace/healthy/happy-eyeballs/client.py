import asyncio, sys


async def main():
    reader, writer = await asyncio.open_connection("localhost", int(sys.argv[1]), happy_eyeballs_delay=0.25)
    writer.write(b"hello\n")
    await writer.drain()
    print(await reader.readline())
    writer.close()
    await writer.wait_closed()


asyncio.run(main())
