import asyncio, sys

class C(asyncio.DatagramProtocol):
    def __init__(self, f):
        self.f = f
    def datagram_received(self, data, addr):
        self.f.set_result(data)

async def main():
    loop = asyncio.get_running_loop()
    f = loop.create_future()
    t, _ = await loop.create_datagram_endpoint(lambda: C(f), remote_addr=("127.0.0.1", int(sys.argv[1])))
    t.sendto(b"hello")
    try:
        print(await asyncio.wait_for(f, 1.5))
    except asyncio.TimeoutError:
        print("timeout")
asyncio.run(main())
