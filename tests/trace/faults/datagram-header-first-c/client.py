import socket, struct, sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
body = b"temperature=21"
s.sendto(struct.pack("!I", len(body)) + body, ("127.0.0.1", int(sys.argv[1])))
print(s.recv(1000))
