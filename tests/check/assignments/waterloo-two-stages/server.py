import sys
from socket import SO_REUSEADDR, SOCK_DGRAM, SOL_SOCKET, socket
from threading import Thread


def transaction(udp):
    message, client = udp.recvfrom(2048)
    udp.sendto(message[::-1], client)
    udp.close()


def negotiate(conn):
    code = conn.makefile().readline().strip()
    if code == sys.argv[2]:
        udp = socket(type=SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        conn.sendall(f"{udp.getsockname()[1]}\n".encode())
        Thread(target=transaction, args=[udp], daemon=True).start()
    conn.close()


server = socket()
server.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
server.bind(("127.0.0.1", int(sys.argv[1])))
server.listen(16)
print(f"SERVER_PORT={sys.argv[1]}")
while True:
    Thread(target=negotiate, args=[server.accept()[0]], daemon=True).start()
