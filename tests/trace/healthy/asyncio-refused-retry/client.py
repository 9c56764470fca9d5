import asyncio, sys


async def main():
    for port in (int(sys.argv[2]), int(sys.argv[1])):
        for attempt in range(3):
            try:
                reader, writer = await asyncio.wait_for(asyncio.open_connection("localhost", port), 2)
            except OSError:
                await asyncio.sleep(0.1)
                continue
            writer.write(b"hello\n")
            print(await reader.readline())
            writer.close()
            return


asyncio.run(main())
