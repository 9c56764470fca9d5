import socket, sys, time

a = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
b = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
for word in (b"one", b"two"):
    a.sendall(word)
    print(a.recv(100))
    time.sleep(0.4)
    b.sendall(word)
    print(b.recv(100))
b.close()
a.close()
