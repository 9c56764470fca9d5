import sys
import json
import socket
import struct
import time

QUOTES = [("ACME", 12.5), ("INIT", 99.0), ("ZORG", 3.75), ("UMBR", 41.2)]

srv = socket.create_server(("127.0.0.1", int(sys.argv[1])))
conn, peer = srv.accept()
for n, (symbol, price) in enumerate(QUOTES):
    payload = json.dumps({"symbol": symbol, "price": price}).encode()
    conn.sendall(struct.pack("!I", len(payload)))
    if n == 2:
        time.sleep(1.2)
    conn.sendall(payload)
    time.sleep(0.2)
print("feed ended by", conn.recv(16), flush=True)
conn.close()
