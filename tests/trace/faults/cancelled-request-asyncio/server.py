import asyncio
import json
import sys

DATA = {
    "user:17": {"name": "Ada", "plan": "pro"},
    "user:18": {"name": "Linus", "plan": "free"},
    "report:2026": {"rows": 18211, "total": 99120.5},
}


async def serve(reader, writer):
    try:
        while True:
            line = await reader.readline()
            if not line:
                break
            verb, _, key = line.decode().strip().partition(" ")
            if verb != "GET":
                writer.write(b"-unknown command\n")
                continue
            if key.startswith("report:"):
                await asyncio.sleep(0.5)
            writer.write(json.dumps(DATA.get(key)).encode() + b"\n")
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def main():
    srv = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    async with srv:
        await srv.serve_forever()


asyncio.run(main())
