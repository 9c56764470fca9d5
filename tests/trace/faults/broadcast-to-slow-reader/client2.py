import socket, sys, time

s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
while True:
    s.sendall(b"ping")
    s.recv(4)
    time.sleep(0.2)
