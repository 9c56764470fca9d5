import sys
import os
import socket

BATCH = 2


def worker(channel):
    served = 0
    while True:
        msg, fds, flags, _ = socket.recv_fds(channel, 64, 1)
        if not msg:
            break
        for fd in fds:
            with socket.socket(fileno=fd) as conn:
                served += 1
                conn.sendall(b"welcome, you are number %d\n" % served)
    os._exit(0)


def main():
    srv = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    mine, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        srv.close()
        mine.close()
        worker(theirs)
    theirs.close()
    for _ in range(3):
        batch = [srv.accept()[0] for _ in range(BATCH)]
        socket.send_fds(mine, [b"batch"], [c.fileno() for c in batch])
        for c in batch:
            c.close()
    mine.close()
    os.waitpid(pid, 0)


main()
