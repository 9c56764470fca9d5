import socket, sys, time
port = int(sys.argv[1])
s = socket.create_connection(("127.0.0.1", port))
print(s.makefile().read())
time.sleep(0.2)
s = socket.create_connection(("127.0.0.1", port))
print(s.recv(100))
