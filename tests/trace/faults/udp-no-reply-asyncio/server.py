import asyncio, sys

class P(asyncio.DatagramProtocol):
    def connection_made(self, t):
        self.t = t
    def datagram_received(self, data, addr):
        print("got", data)

async def main():
    await asyncio.get_running_loop().create_datagram_endpoint(P, local_addr=("127.0.0.1", int(sys.argv[1])))
    await asyncio.sleep(100)
asyncio.run(main())
