import socket, sys, time

time.sleep(0.4)
for port in range(int(sys.argv[1]), int(sys.argv[1]) + 9):
    try:
        s = socket.create_connection(("127.0.0.1", port))
        print(s.recv(10), s.recv(10))
        break
    except ConnectionRefusedError:
        pass
