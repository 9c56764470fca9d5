import socket, sys, time

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
conn, _ = listener.accept()
conn.sendall(b"echo: " + conn.recv(100))
time.sleep(0.5)
conn.sendall(b"bob: are you there?\n")
conn.recv(100)
