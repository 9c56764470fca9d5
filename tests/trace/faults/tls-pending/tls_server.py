import sys
import select
import socket
import ssl

ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
ctx.load_cert_chain("cert.pem", "key.pem")
lsock = socket.create_server(("127.0.0.1", int(sys.argv[1])))
conns = {}


def handle(line):
    item, qty = line.split(b",")
    return b"ok %s x%d\n" % (item, int(qty))


while True:
    ready, _, _ = select.select([lsock, *conns], [], [])
    for s in ready:
        if s is lsock:
            raw, _ = lsock.accept()
            conns[ctx.wrap_socket(raw, server_side=True)] = b""
            continue
        data = s.recv(128)
        if not data:
            del conns[s]
            s.close()
            continue
        *lines, conns[s] = (conns[s] + data).split(b"\n")
        for line in lines:
            s.sendall(handle(line))
