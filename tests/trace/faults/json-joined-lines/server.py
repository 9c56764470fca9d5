import json
import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    player, _ = listener.accept()
    with player:
        name = player.recv(100).decode()
        # the welcome, and at once the state of the game
        player.sendall(
            json.dumps({"type": "welcome", "name": name}).encode() + b"\n"
            + json.dumps({"type": "board", "cells": [0] * 9}).encode() + b"\n"
        )
        player.recv(100)
