import os, socket

os.makedirs("run", exist_ok=True)
os.chdir("run")
listener = socket.socket(socket.AF_UNIX)
listener.bind("app.sock")
listener.listen()
conn, _ = listener.accept()
