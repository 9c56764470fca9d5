"""Asks for line after line, sends each and shows its answer: prompt_client.py [-a ADDRESS] -p PORT."""

import argparse
import socket

parser = argparse.ArgumentParser()
parser.add_argument("-a", "--address", default="127.0.0.1")
parser.add_argument("-p", "--port", type=int, required=True)
options = parser.parse_args()

client_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
client_socket.connect((options.address, options.port))
while True:
    try:
        sentence = input("Input lowercase sentence: ")
    except EOFError:
        break
    if not sentence:
        continue  # nothing would be sent, and then it would wait for ever
    # Habit: after each send, exactly one recv.
    client_socket.send(sentence.encode())
    modified_sentence = client_socket.recv(1024)
    print("From Server:", modified_sentence.decode())
client_socket.close()
