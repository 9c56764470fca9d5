import sys
import json
import socket
import struct


class Feed:
    def __init__(self, address):
        self.sock = socket.create_connection(address)
        self.sock.settimeout(0.5)

    def _take(self, count):
        data = b""
        while len(data) < count:
            part = self.sock.recv(count - len(data))
            if not part:
                raise EOFError("feed closed")
            data += part
        return data

    def next_quote(self):
        (size,) = struct.unpack("!I", self._take(4))
        return json.loads(self._take(size))


feed = Feed(("127.0.0.1", int(sys.argv[1])))
seen = 0
while seen < 4:
    try:
        quote = feed.next_quote()
    except socket.timeout:
        print("(nothing new)", flush=True)
        continue
    seen += 1
    print(quote["symbol"], quote["price"], flush=True)
feed.sock.sendall(b"BYE")
