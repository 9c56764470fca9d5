"""An IRC server: NICK, USER, JOIN, PART, PRIVMSG, PING, QUIT.

Mistakes: nick-first, no-pong, echoes, to-everybody, no-prefix, no-401, no-433, keeps-members.
"""

from __future__ import annotations

import contextlib
import threading

from tests.check.contracts.programs.serving import MISTAKE, Stream, serve

SERVER = ":irc.check.example"
people: dict[str, Stream] = {}
channels: dict[str, list[str]] = {}
lock = threading.Lock()


def send(nick: str, text: str) -> None:
    if nick in people:
        with contextlib.suppress(OSError):
            people[nick].conn.sendall(f"{text}\r\n".encode())


def handle(stream: Stream) -> None:
    nick = ""
    has_user = registered = False
    try:
        while True:
            line = stream.line().decode()
            command, _, rest = line.partition(" ")
            with lock:
                if command == "NICK":
                    if rest in people and MISTAKE != "no-433":
                        stream.conn.sendall(f"{SERVER} 433 * {rest} :Nickname is in use\r\n".encode())
                        continue
                    nick = rest
                    people[nick] = stream
                elif command == "USER":
                    has_user = bool(nick) or MISTAKE != "nick-first"
                elif command == "PING":
                    if MISTAKE != "no-pong":
                        send(nick, f"{SERVER} PONG irc.check.example {rest}")
                elif command == "QUIT":
                    send(nick, f"ERROR :{rest}")
                    return
                elif registered:
                    obey(nick, command, rest)
                if nick and has_user and not registered:
                    registered = True
                    send(nick, f"{SERVER} 001 {nick} :Welcome")
                    send(nick, f"{SERVER} 422 {nick} :MOTD File is missing")
    finally:
        with lock:
            people.pop(nick, None)
            for members in channels.values():
                if nick in members:
                    members.remove(nick)


def obey(nick: str, command: str, rest: str) -> None:
    prefix = "" if MISTAKE == "no-prefix" else f":{nick}!{nick}@127.0.0.1 "
    target, _, text = rest.partition(" ")
    members = channels.setdefault(target, []) if target.startswith("#") else []
    if command == "JOIN":
        members.append(nick)
        for each in members:
            send(each, f"{prefix}JOIN :{target}")
        send(nick, f"{SERVER} 353 {nick} = {target} :{' '.join(members)}")
        send(nick, f"{SERVER} 366 {nick} {target} :End of NAMES list")
    elif command == "PART":
        for each in members:
            send(each, f"{prefix}PART {target}")
        if MISTAKE != "keeps-members":
            members.remove(nick)
    elif command == "PRIVMSG":
        if not members and target not in people:
            if MISTAKE != "no-401":
                send(nick, f"{SERVER} 401 {nick} {target} :No such nick")
            return
        receivers = members if members else [target]
        if MISTAKE == "to-everybody":
            receivers = list(people)
        for each in receivers:
            if each != nick or MISTAKE == "echoes":
                send(each, f"{prefix}PRIVMSG {target} {text}")


serve(handle)
