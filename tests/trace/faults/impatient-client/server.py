import socket, sys, time

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
for _ in range(1):
    conn, _ = listener.accept()
    query = conn.recv(100)
    time.sleep(2)
    conn.sendall(b"result of " + query)
    conn.close()
