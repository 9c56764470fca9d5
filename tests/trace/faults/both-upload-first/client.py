import socket, sys

peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
peer.sendall(b"orders...\n" * 900_000)
total = 0
while total < 9_000_000:
    total += len(peer.recv(65536))
print("synchronised", total)
