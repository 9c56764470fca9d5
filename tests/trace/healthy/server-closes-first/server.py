import socket, sys, time

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    conn.sendall(time.strftime("%H:%M:%S\n").encode())
    conn.close()
