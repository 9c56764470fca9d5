import socket, subprocess, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
conn, _ = listener.accept()
conn.set_inheritable(True)
logger = subprocess.Popen(["sleep", "2.5"], close_fds=False)
conn.sendall(conn.recv(100))
conn.close()
logger.wait()
