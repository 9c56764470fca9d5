import socket, struct, sys, time

first = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
first.sendall(b"hello")
first.recv(100)
first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
first.close()  # as a client that crashes
time.sleep(0.5)
try:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as second:
        second.sendall(b"hello again")
        print(second.recv(100))
except OSError as error:
    print(error)
