import asyncio, socket


async def main():
    server = await asyncio.start_server(lambda r, w: w.close(), "localhost", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        await asyncio.wait_for(asyncio.open_connection("localhost", port + 1), 0.5)
    except OSError as error:
        print(error)
    task = asyncio.create_task(asyncio.open_connection("localhost", port))
    await asyncio.sleep(0)
    task.cancel()
    server.close()


asyncio.run(main())
