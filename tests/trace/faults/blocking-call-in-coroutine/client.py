import asyncio
import sys


async def heartbeat(stop):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    beats = 0
    while not stop.is_set():
        writer.write(b"PING\n")
        try:
            await asyncio.wait_for(reader.readline(), 1.0)
        except asyncio.TimeoutError:
            print(f"gateway declared dead after {beats} beats")
            break
        beats += 1
        await asyncio.sleep(0.2)
    else:
        print(beats, "beats, gateway alive")
    writer.close()


async def stock(stop):
    await asyncio.sleep(0.5)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    writer.write(b"STOCK bolt\n")
    print("stock:", (await reader.readline()).decode().strip())
    writer.close()
    stop.set()


async def main():
    stop = asyncio.Event()
    await asyncio.gather(heartbeat(stop), stock(stop))


asyncio.run(main())
