import socket
import subprocess
import sys

# The child that reads has read a line, and waits for the next one, which is slow to come.
COMMAND = "(echo a; sleep 1.5; seq 20000) | cat; seq 30000 | (sleep 1.5; tail -n 1)"

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
connection, _ = listener.accept()
with connection:
    connection.recv(100)
    done = subprocess.run(COMMAND, shell=True, capture_output=True, check=True)
    connection.sendall(done.stdout)
