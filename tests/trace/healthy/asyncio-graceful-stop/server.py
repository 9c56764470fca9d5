"""Ends gracefully on SIGTERM-like request: finishes what runs, then half-closes and waits for the peers."""
import asyncio
import sys
async def main():
    stop = asyncio.Event()
    tasks = set()
    async def one(r, w):
        tasks.add(asyncio.current_task())
        try:
            while not stop.is_set():
                read = asyncio.ensure_future(r.readline())
                quit_ = asyncio.ensure_future(stop.wait())
                done, _ = await asyncio.wait({read, quit_}, return_when=asyncio.FIRST_COMPLETED)
                quit_.cancel()
                if read not in done:
                    read.cancel()
                    break
                line = read.result()
                if not line:
                    break
                if line == b"slow\n":
                    await asyncio.sleep(0.5)
                if line == b"stop\n":
                    stop.set()
                w.write(b"done " + line)
                await w.drain()
            w.write(b"bye\n")
            await w.drain()
            w.write_eof()
            try:
                await asyncio.wait_for(r.read(), 2)
            except (asyncio.TimeoutError, TimeoutError):
                pass
        except OSError:
            pass
        finally:
            w.close()
    server = await asyncio.start_server(one, "127.0.0.1", int(sys.argv[1]))
    await stop.wait()
    server.close()
    await asyncio.gather(*tasks)
asyncio.run(main())
