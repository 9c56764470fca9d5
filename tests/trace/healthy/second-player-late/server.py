import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
players = [listener.accept()[0] for _ in range(2)]
for number, player in enumerate(players):
    player.sendall(b"You are player %d of 2\n" % number)
    player.close()
