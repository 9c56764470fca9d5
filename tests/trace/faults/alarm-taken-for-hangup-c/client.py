import socket, sys, time

with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    for pause in (0.2, 1.5, 0.2):
        time.sleep(pause)
        s.sendall(b"are you there?")
        print(s.recv(100))
