import sys
import socket
import struct

messages = ["0800 ECHO", "0200 PAY 1725 EUR TO ACCOUNT 8812 FEB 26", "0800 LOGOFF"]
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for text in messages:
    body = text.encode("ascii")
    sock.sendall(struct.pack("!I", len(body)) + body)
    ack = sock.recv(1)
    if ack != b"+":
        raise SystemExit("no ack for " + text)
    print("acked", text)
sock.close()
