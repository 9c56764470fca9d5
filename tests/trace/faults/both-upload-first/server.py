import socket, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
peer, _ = listener.accept()
peer.sendall(b"inventory\n" * 900_000)
total = 0
while total < 9_000_000:
    total += len(peer.recv(65536))
print("synchronised", total)
