import os, socket, time

for run in range(2):
    if os.path.exists("d.sock"):
        os.unlink("d.sock")
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.bind("d.sock")
    while s.recv(100) != b"restart":
        pass
    s.close()
    time.sleep(0.2)
