import socket, sys, time

a = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
b = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
time.sleep(0.2)
a.sendall(b"hello b\n")
print(b.recv(100))
b.sendall(b"hello a\n")
print(a.recv(100))
a.close()
b.close()
