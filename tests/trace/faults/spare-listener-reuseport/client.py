import socket, sys

good = 0
for _ in range(12):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=0.2)
    try:
        good += s.recv(10) == b"ok\n"
    except TimeoutError:
        pass
    s.close()
print(good, "of 12")
