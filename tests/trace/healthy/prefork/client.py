import socket, sys, threading


def talk(number):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
        for _ in range(3):
            s.sendall(b"client %d" % number)
            s.recv(100)


threads = [threading.Thread(target=talk, args=(n,)) for n in range(3)]
for each in threads:
    each.start()
for each in threads:
    each.join()
