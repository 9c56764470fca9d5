import socket
import sys
import threading
import time


def play(pause):
    time.sleep(pause)
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
        while text := s.recv(100):
            print(text)


players = [threading.Thread(target=play, args=(pause,)) for pause in (0, 1.5)]
for player in players:
    player.start()
for player in players:
    player.join()
