import socket, sys

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"x.iso")
received = 0
while received < 300_000:
    received += len(s.recv(16384))
s.close()
print("cancelled after", received)
