import socket, sys, threading


def talk():
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
        for size in (1, 100, 5000, 20000):
            s.sendall(bytes(size))
            got = 0
            while got < size:
                got += len(s.recv(65536))


threads = [threading.Thread(target=talk) for _ in range(4)]
[each.start() for each in threads]
[each.join() for each in threads]
