import asyncio
import sys

channels = {}  # name -> writers
SIZE = 200


def say(writer, text):
    writer.write(text.ljust(SIZE).encode())


def tell(channel, text, writer):
    for other in channels.get(channel, ()):
        if other is not writer:
            say(other, text)


class Member:
    def __init__(self, name, writer):
        self.name = name
        self.writer = writer
        self.channel = None

    def enter(self, channel):
        self.leave()
        tell(channel, f"{self.name} has joined", self.writer)
        channels[channel].append(self.writer)
        self.channel = channel

    def leave(self):
        if self.channel is not None:
            channels[self.channel].remove(self.writer)
            tell(self.channel, f"{self.name} has left", self.writer)
            self.channel = None

    def control(self, command, channel):
        if command == "/list":
            for each in channels:
                say(self.writer, each)
        elif command not in ("/create", "/join"):
            say(
                self.writer,
                f"{command} is not a valid control message. Valid messages are /create, /list, and /join.",
            )
        elif not channel:
            verb = command[1:]
            say(self.writer, f"{command} command must be followed by the name of a channel to {verb}.")
        elif command == "/create" and channel in channels:
            say(self.writer, f"Room {channel} already exists, so cannot be created.")
        elif command == "/join" and channel not in channels:
            say(self.writer, f"No channel named {channel} exists. Try '/create {channel}'?")
        else:
            channels.setdefault(channel, [])
            self.enter(channel)

    def message(self, text):
        if text.startswith("/"):
            command, _, channel = text.partition(" ")
            self.control(command, channel)
        elif self.channel is None:
            say(self.writer, "Not currently in any channel. Must join a channel before sending messages.")
        else:
            tell(self.channel, f"[{self.name}] {text}", self.writer)


async def serve(reader, writer):
    member = None
    try:
        member = Member((await reader.readexactly(SIZE)).decode().rstrip(), writer)
        while True:
            member.message((await reader.readexactly(SIZE)).decode().rstrip())
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        if member:
            member.leave()
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
