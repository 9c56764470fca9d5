"""An SMTP server that takes any message.

Mistakes: no-greeting, no-354, any-order, ends-at-any-dot, stays-open, upper-case-only, keeps-sender,
one-recv, lf-only.
"""

from __future__ import annotations

from tests.check.contracts.programs.serving import MISTAKE, Stream, serve


def handle(stream: Stream) -> None:
    def say(text: str) -> None:
        stream.conn.sendall((text + ("\n" if MISTAKE == "lf-only" else "\r\n")).encode())

    if MISTAKE != "no-greeting":
        say("220 check.example ready")
    sender, recipients = False, 0
    while True:
        words = stream.line().decode().split()
        word = words[0] if words else ""
        if MISTAKE != "upper-case-only":
            word = word.upper()
        if word in ("HELO", "EHLO"):
            if word == "EHLO":
                say("250-check.example")
            say("250 check.example" if word == "HELO" else "250 8BITMIME")
        elif word == "NOOP":
            say("250 OK")
        elif word == "RSET":
            sender, recipients = False, 0
            say("250 OK")
        elif word == "MAIL":
            if sender:
                say("503 nested MAIL")
                continue
            sender = True
            say("250 OK")
        elif word == "RCPT":
            if not sender and MISTAKE != "any-order":
                say("503 no sender")
                continue
            recipients += 1
            say("250 OK")
        elif word == "DATA":
            if not recipients:
                say("503 no recipients")
                continue
            if MISTAKE != "no-354":
                say("354 go on")
            while (line := stream.line()) != b"." and not (MISTAKE == "ends-at-any-dot" and line[:1] == b"."):
                pass
            if MISTAKE != "keeps-sender":
                sender, recipients = False, 0
            say("250 accepted")
        elif word == "QUIT":
            say("221 bye")
            if MISTAKE != "stays-open":
                return
        else:
            say("500 unknown command")


serve(handle)
