import socket, sys, time

address = "127.0.0.1", int(sys.argv[1])
with socket.create_connection(address) as s:
    s.sendall(b"stop\n")
    s.recv(1)
time.sleep(0.3)
try:
    socket.create_connection(address).close()
    sys.exit("it still runs")
except ConnectionRefusedError:
    print("stopped")
