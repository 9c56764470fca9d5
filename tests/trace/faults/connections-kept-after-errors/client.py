import socket
import sys

failed = []


class OddNumber(Exception):
    def __init__(self, sock, text):
        super().__init__(text)
        self.sock = sock


def halve(port, number):
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(b"%d\n" % number)
    reply = sock.recv(100).decode()
    if reply.startswith("ERROR"):
        raise OddNumber(sock, reply)
    sock.close()
    return int(reply.split()[1])


for number in range(12):
    try:
        print(number, halve(int(sys.argv[1]), number))
    except OddNumber as error:
        failed.append(error)
print(len(failed), "failed")
