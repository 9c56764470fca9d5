import base64
import hashlib
import os
import socket
import sys

key = base64.b64encode(os.urandom(16)).decode()
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(
    (
        "GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()
)
response = s.recv(4096).decode()
expected = base64.b64encode(
    hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
).decode()
if f"sec-websocket-accept: {expected}".lower() not in response.lower():
    s.close()
    sys.exit("Error during WebSocket handshake: Incorrect 'Sec-WebSocket-Accept' header value")
s.sendall(b"\x81\x85\0\0\0\0hello")
print(s.recv(100))
