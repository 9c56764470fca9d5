import asyncio, sys
class P(asyncio.Protocol):
    def connection_made(self, t):
        self.t, self.buf, self.task = t, b"", None
    def data_received(self, d):
        self.buf += d
        if b"\n" in self.buf:
            self.task = asyncio.get_running_loop().create_task(self.work())
    async def work(self):
        await asyncio.sleep(0.1)
        self.t.write(b"result of " + self.buf)
    def eof_received(self):
        if self.task:
            self.task.cancel()
        return False
async def main():
    s = await asyncio.get_running_loop().create_server(P, "127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(s.sockets[0].getsockname()[1], flush=True)
    await s.serve_forever()
asyncio.run(main())
