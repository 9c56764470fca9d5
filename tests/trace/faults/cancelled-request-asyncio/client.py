import asyncio
import json
import sys


class Store:
    def __init__(self):
        self.lock = asyncio.Lock()

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[1]))

    async def get(self, key):
        async with self.lock:
            self.writer.write(f"GET {key}\n".encode())
            await self.writer.drain()
            return json.loads(await self.reader.readline())


async def dashboard(store):
    try:
        report = await asyncio.wait_for(store.get("report:2026"), 0.2)
        print("report", report)
    except asyncio.TimeoutError:
        print("report not ready, skipped")
    for uid in (17, 18):
        user = await store.get(f"user:{uid}")
        print(f"user {uid}:", user.get("name"), user)


async def main():
    store = Store()
    await store.open()
    await dashboard(store)
    store.writer.close()


asyncio.run(main())
