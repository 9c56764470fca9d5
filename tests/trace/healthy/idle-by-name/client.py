import socket, sys, time

with socket.create_connection(("localhost", int(sys.argv[1]))) as s:
    for word in (b"one", b"two"):
        s.sendall(word)
        print(s.recv(100))
        time.sleep(1.3)
