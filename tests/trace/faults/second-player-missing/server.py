import socket
import sys

server = socket.socket()
server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen(2)
players = []
while len(players) < 2:
    conn, addr = server.accept()
    print("player", len(players) + 1, "connected")
    players.append(conn)
for n, p in enumerate(players):
    p.sendall(b"You are player %d\n" % (n + 1))
board = [" "] * 9
while True:
    for n, p in enumerate(players):
        p.sendall(b"Your move\n")
        move = int(p.recv(16))
        board[move] = "XO"[n]
