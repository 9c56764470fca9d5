import sys
import socket, struct, time
SIZE = 64
def wait_for(c, n):
    while True:
        d = c.recv(n, socket.MSG_PEEK)
        if len(d) >= n or not d:
            return len(d)
        time.sleep(.02)
w = socket.create_server(("127.0.0.1", int(sys.argv[1])))
count = 0
while True:
    c, _ = w.accept()
    while wait_for(c, SIZE) >= SIZE:
        record = c.recv(SIZE)
        ident, value = struct.unpack_from("!Id", record)
        count += 1
        c.sendall(struct.pack("!II", ident, count))
    c.close()
