import sys
from socket import AF_INET, SOCK_STREAM, socket

client = socket(AF_INET, SOCK_STREAM)
client.settimeout(5)
client.connect((sys.argv[1], int(sys.argv[2])))
replies = client.makefile("rb")


def expect(code):
    line = replies.readline().decode()
    print(line, end="")
    if not line.startswith(code):
        print(f"{code} reply not received from server.")
        client.sendall(b"QUIT\r\n")
        sys.exit()


def say(line):
    client.sendall(line.encode() + b"\r\n")


expect("220")
for line, code in (
    ("HELO alice", "250"),
    ("MAIL FROM: <alice@example.com>", "250"),
    ("RCPT TO: <bob@example.com>", "250"),
    ("DATA", "354"),
):
    say(line)
    expect(code)
say("Subject: networks")
say("")
say("I love computer networks!")
say(".")
expect("250")
say("QUIT")
expect("221")
client.close()
