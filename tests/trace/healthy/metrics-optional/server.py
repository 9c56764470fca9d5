import socket, sys

metrics = socket.socket()
try:
    metrics.connect(("127.0.0.1", int(sys.argv[2])))
except OSError as error:
    print("no metrics:", error)
    metrics.close()
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
conn, _ = listener.accept()
conn.sendall(conn.recv(10))
conn.close()
sys.exit(3)
