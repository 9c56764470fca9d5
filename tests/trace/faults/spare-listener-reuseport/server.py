import socket, sys


def listener():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    s.bind(("127.0.0.1", int(sys.argv[1])))
    s.listen()
    return s


spare = listener()
main = listener()
main.settimeout(1.5)
try:
    while True:
        conn, _ = main.accept()
        conn.sendall(b"ok\n")
        conn.close()
except TimeoutError:
    pass
