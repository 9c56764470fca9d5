import socket, sys, time

time.sleep(0.8)
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
conn, _ = listener.accept()
conn.recv(100)
conn.sendall(b"yes\n")
conn.close()
