import asyncio, sys


async def talk(number):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))
    for turn in range(5):
        writer.write(b"client %d, turn %d\n" % (number, turn))
        await writer.drain()
        print(await reader.readline())
        await asyncio.sleep(0.05)
    writer.close()
    await writer.wait_closed()


async def main():
    await asyncio.gather(*map(talk, range(4)))


asyncio.run(main())
