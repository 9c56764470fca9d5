import os, socket

if os.path.exists("app.sock"):
    os.unlink("app.sock")
listener = socket.socket(socket.AF_UNIX)
listener.bind("app.sock")
listener.listen()
while True:
    conn, _ = listener.accept()
    with conn:
        while data := conn.recv(4096):
            conn.sendall(data.upper())
