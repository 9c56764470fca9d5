import socket, sys, time

time.sleep(0.5)
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"x")
print(s.recv(10), s.recv(1))
s.close()
