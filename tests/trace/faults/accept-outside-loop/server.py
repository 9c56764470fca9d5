import socket, sys, time

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
conn, _ = listener.accept()
conn.sendall(conn.recv(100))
conn.close()
while True:
    time.sleep(60)
