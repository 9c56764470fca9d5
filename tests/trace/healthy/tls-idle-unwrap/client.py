import socket, ssl, sys, time

context = ssl._create_unverified_context()
tls = context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
tls.sendall(b"hello")
print(tls.recv(100))
time.sleep(0.8)
try:
    tls.unwrap()
except OSError as error:
    print("already closed:", error)
tls.close()
