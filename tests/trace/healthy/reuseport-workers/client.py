import socket, sys, time

time.sleep(0.3)
for number in range(12):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
        s.sendall(b"%d" % number)
        assert s.recv(100) == b"%d" % number
