import os, socket, subprocess, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    conn, _ = listener.accept()
    child = subprocess.Popen(["tr", "a-z", "A-Z"], stdin=conn, stdout=conn)
    conn.close()
    child.wait()
