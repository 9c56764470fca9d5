import socket, sys, time

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for _ in range(8):
    s.sendall(b"hello\n")
    s.recv(100)
    time.sleep(0.15)
