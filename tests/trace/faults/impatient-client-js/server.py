import socket, sys, threading, time

def serve(connection):
    with connection, connection.makefile("rw") as stream:
        for line in stream:
            time.sleep(1.2)  # a long query
            try:
                stream.write("result of " + line)
                stream.flush()
            except OSError as error:
                print(error)

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],)).start()
