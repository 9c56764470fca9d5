import socket, sys, time

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
conn, _ = listener.accept()
question = conn.recv(100)
time.sleep(1.2)
conn.sendall(b"after some thought: 42\n")
conn.close()
