"""Serving a command: a process for each connection, which gets the connection as its stdin and stdout.

As inetd(8) does it, and every program that reads its standard input is a server. The connection itself is
handed over, nothing copies bytes in between, so nothing is cut off at the peer's EOF: the command
reads EOF, and goes on writing for as long as it likes. Its standard error stays ours. Only where something
wraps the connection (TLS, a PROXY header) it gets pipes instead, and `command_relay.py` carries the bytes.

1. A socket that has been made non-blocking stays so through fork() and exec(), and a program that expects
   to block would fail with EAGAIN. So the connection is made to block.
2. exec() puts handled signals back to their defaults but keeps ignored ones ignored. Python ignores SIGPIPE,
   and a filter that ignores it goes on writing to a peer that has left. So they are put back.
3. A command may start others. It leads a session of its own, so that all of them can be ended, and ^C at
   our terminal is for us alone.

Without a pump a command has no conversation that could be driven, so what looks at bytes (idle limits, events
about what was received) is not to be had.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import signal
import socket
import struct
import subprocess
from collections.abc import Mapping
from typing import ClassVar, Final

from bothends.endpoints import Endpoint
from bothends.engines.acceptor import AcceptedConnection, Acceptor
from bothends.engines.base import EngineContext
from bothends.engines.command_relay import CommandConversation, CommandRelay
from bothends.engines.fork import ChildPerConnection
from bothends.engines.processes import Child, ChildSet, fork
from bothends.errors import OUT_OF_RESOURCES, ServiceError, Unavailable, UnsupportedCombination
from bothends.events import Accepted, Closed, CloseReason, ServiceFailed
from bothends.services.base import Conversation, Peer, Push, Service

# A temporary lack of resources (EAGAIN: fork(2)). Any other errno is the command's own fault.
_RESOURCE_ERRORS: Final = OUT_OF_RESOURCES | {errno.EAGAIN}

_RESET_SIGNALS: Final = (
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGCHLD,
)


class CommandService(Service):
    """A command line in the place of a service. It can only be carried by `CommandEngine`.

    Args:
        text: the command line, cut into words as a shell would, with quotes but no variables,
            patterns, pipes or redirections.
        shell: give it to /bin/sh instead, which knows all of those.

    Raises:
        ServiceError: no command line.
        Unavailable: there is no such program, or it can't be executed. (With `shell`, or when the
            interpreter of a script is missing, only the first connection shows it: event Failed.)
    """

    name = "exec"
    summary = "a command for each connection, as inetd does it"
    datagrams = False

    def __init__(self, text: str, *, shell: bool = False) -> None:
        self.text = text
        try:
            self.argv = ["/bin/sh", "-c", text] if shell else shlex.split(text)
        except ValueError as error:
            raise ServiceError(text, str(error).lower(), "quotes come in pairs, as in a shell") from error
        if not text.strip() or not self.argv or not self.argv[0]:
            raise ServiceError(repr(text), "no command")
        program = self.argv[0]
        if shutil.which(program) is None:
            exists = os.path.dirname(program) and os.path.exists(program)  # noqa: PTH110, PTH120
            if exists:
                hint = "make it executable"
            elif not shell and any(mark in text for mark in "|<>&;$"):
                hint = "pipes, variables and redirections need a shell"
            else:
                hint = "is it installed, and in a directory of PATH?"
            raise Unavailable("run", program, errno.EACCES if exists else errno.ENOENT, hint)

        self.relay: CommandRelay | None = None
        """What carries the one connection of this process, if it is a pump's."""

    def open(self, peer: Peer, push: Push) -> Conversation:
        if self.relay is None:
            raise UnsupportedCombination(
                "this engine", f"the command {self.text!r}", "only CommandEngine can"
            )
        process = self.spawn(
            subprocess.PIPE, connection_environment(os.environ, None, peer), new_session=False
        )
        self.relay.command = CommandConversation(process)
        return self.relay.command

    def spawn(self, stdio_fd: int, env: Mapping[str, str], *, new_session: bool) -> subprocess.Popen[bytes]:
        """Start it, with `both` as its input and its output.

        Raises:
            OSError, subprocess.SubprocessError: it could not be started.
        """
        return subprocess.Popen(
            self.argv,
            stdin=stdio_fd,
            stdout=stdio_fd,
            env=env,
            bufsize=0,
            start_new_session=new_session,
            preexec_fn=_reset_signals,  # noqa: PLW1509  (there are no threads here)
        )


class CommandEngine(ChildPerConnection):
    """Runs a command for each connection. The service of its job is a `Command`.

    Events: Opened, Exited (role "command") and Closed, whose byte counts are 0, since nobody counts. Where
    a pump carries the bytes: all that a connection of another engine has, told in the pump's process.
    Draining waits for the commands until `limits.drain` is over; then SIGTERM, and SIGKILL.
    Should this process be killed, the commands go on: a conversation is theirs alone.
    """

    name = "command"
    summary = "a command for each connection, as inetd does it"
    datagrams = False
    why_not: ClassVar = {
        "datagrams": "a command takes a connection for its input and output, and datagrams have none",
        "posts": "what a command says goes to its own peer",
    }

    kill_delay = 0.0
    termination_signals = (signal.SIGTERM, signal.SIGKILL)
    kill_group = True

    def __init__(self, context: EngineContext) -> None:
        super().__init__(context)
        if not isinstance(context.service, CommandService):
            raise UnsupportedCombination(
                "engine command", f"service {context.service.name}", "it runs commands only"
            )
        self._service = context.service

    @classmethod
    def unsupported_reason(cls, service: Service, endpoint: Endpoint) -> UnsupportedCombination | None:
        """See Engine."""
        if not isinstance(service, CommandService):
            return UnsupportedCombination(
                "engine command", f"service {service.name}", "it runs commands only"
            )
        return super().unsupported_reason(service, endpoint)

    def start_child(
        self, accepted: AcceptedConnection, acceptor: Acceptor, children: ChildSet
    ) -> Child | None:
        """Start the command, or the pump that will."""
        if _has_layers(accepted):
            return self._start_relay(accepted, acceptor, children)
        connection, peer, _ = accepted
        connection.setblocking(True)
        failure: Exception | None = None
        try:
            variables = connection_environment(os.environ, connection, peer)
            process = self._service.spawn(connection.fileno(), variables, new_session=True)
        except OSError as error:
            if error.errno in _RESOURCE_ERRORS:
                raise
            failure = error
        except subprocess.SubprocessError as error:
            failure = error
        self._emit_opened(peer, failure)
        # Popen itself asks for the status, so that it knows that it has been asked for.
        return Child(process.pid, "command", process.poll) if failure is None else None

    def _start_relay(self, accepted: AcceptedConnection, acceptor: Acceptor, children: ChildSet) -> Child:
        def carry() -> None:
            children.close_in_child()
            acceptor.close_in_child()
            self.context.stop.detach_in_child()
            self._service.relay = CommandRelay(self.context, accepted)
            raise SystemExit(self._service.relay.run())

        return fork("command", carry)

    def child_exited(self, accepted: AcceptedConnection, child: Child) -> None:
        """See ChildPerConnection. A pump has told the end itself."""
        if self.context.observe is not None and not _has_layers(accepted):
            asked_to = (
                child.status in (-signal.SIGTERM, -signal.SIGKILL) and self.context.stop.draining.is_set()
            )
            cause = CloseReason.ABORTED if asked_to else CloseReason.SERVICE
            peer = accepted.peer
            self.context.observe(Closed(peer.connection, peer.address, cause, 0, 0))

    def _emit_opened(self, peer: Peer, failure: Exception | None) -> None:
        observe = self.context.observe
        if observe is None:
            return
        observe(Accepted(peer.connection, peer.address, peer.local))
        if failure is not None:
            observe(ServiceFailed(peer.connection, peer.address, failure))
            observe(Closed(peer.connection, peer.address, CloseReason.FAILED, 0, 0))


def _has_layers(accepted: AcceptedConnection) -> bool:
    endpoint = accepted.listener.requested_endpoint
    return bool(endpoint.wrappers) or endpoint.scheme == "tls"


_UCSPI_TCP_NAMES: Final = (
    "LOCALHOST",
    "LOCALIP",
    "LOCALPORT",
    "REMOTEHOST",
    "REMOTEINFO",
    "REMOTEIP",
    "REMOTEPORT",
)

# What a command could take for its own connection's, though it is about another one: a server that was
# itself started by inetd, tcpserver or systemd has these in its environment.
_CONNECTION_VARIABLES: Final = frozenset(
    {"PROTO", "REMOTE_ADDR", "REMOTE_HOST", "REMOTE_PORT", "SERVER_ADDR", "SERVER_PORT"}
    | {"LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID"}
    | {prefix + name for prefix in ("TCP", "TCP6") for name in (*_UCSPI_TCP_NAMES, "INTERFACE")}
    | {f"UNIXLOCAL{name}" for name in ("GID", "PATH", "PID", "UID")}
    | {f"UNIXREMOTE{name}" for name in ("EGID", "EUID", "PATH", "PID")}
)


def connection_environment(
    inherited: Mapping[str, str], connection: socket.socket | None, peer: Peer
) -> dict[str, str]:
    """What a command finds in its environment about its connection; None for one that is wrapped, where who
    connected is not always whom we talk to.

    The names of UCSPI (tcp-environ(5), with ucspi-tcp6's for IPv6; ucspi-unix), and of CGI
    (RFC 3875, section 4.1).
    """
    found = {name: value for name, value in inherited.items() if name not in _CONNECTION_VARIABLES}
    local, remote = peer.local, peer.address
    if remote.family == "unix":
        found |= {"PROTO": "UNIX", "UNIXLOCALPATH": local.host}
        found |= _peer_credentials(connection) if connection is not None else {}
        return found
    found |= {
        "REMOTE_ADDR": remote.host,
        "REMOTE_PORT": str(remote.port),
        "SERVER_ADDR": local.host,
        "SERVER_PORT": str(local.port),
    }
    if remote.family == "vsock":
        found["PROTO"] = "VSOCK"
        return found
    # An IPv6 connection has the plain names too, for the programs that know no others.
    prefixes = ["TCP", "TCP6"] if remote.family == "inet6" else ["TCP"]
    found["PROTO"] = prefixes[-1]
    for prefix in prefixes:
        found |= {
            f"{prefix}LOCALIP": local.host.partition("%")[0],
            f"{prefix}LOCALPORT": str(local.port),
            f"{prefix}REMOTEIP": remote.host.partition("%")[0],
            f"{prefix}REMOTEPORT": str(remote.port),
        }
    if zone := remote.host.partition("%")[2]:
        found["TCP6INTERFACE"] = zone
    return found


def _peer_credentials(connection: socket.socket) -> dict[str, str]:
    """Who was at the other end when it connected (unix(7), SO_PEERCRED)."""
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    except (AttributeError, OSError):  # not Linux
        return {}
    pid, uid, gid = struct.unpack("iII", raw)
    return {"UNIXREMOTEPID": str(pid), "UNIXREMOTEEUID": str(uid), "UNIXREMOTEEGID": str(gid)}


def _reset_signals() -> None:
    """In the child, between fork and exec."""
    for number in _RESET_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
