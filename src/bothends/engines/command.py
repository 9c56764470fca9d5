"""Serve a command: a process for each connection, with the connection as its stdin and stdout.

As with inetd(8), any program that reads its standard input becomes a server. The command gets the socket
itself, and no process copies the bytes. So the peer's EOF cuts nothing off: the command reads EOF, and may
continue to write. It inherits standard error. Only with layers (TLS, a PROXY header) it gets pipes instead,
and `command_relay.py` relays the bytes.

1. A non-blocking socket stays non-blocking across fork() and exec(), and a program that expects to block
   would fail with EAGAIN. So the connection is made blocking.
2. exec() resets handled signals to their defaults, but ignored signals stay ignored. Python ignores SIGPIPE,
   and a filter that inherits this continues to write after its peer has closed. So they are reset to their
   defaults.
3. A command may start other processes. It leads its own session, so that a signal can reach all of them, and
   so that ^C in the server's terminal does not reach the command.

Without the relay there is no conversation: idle timeouts and events about received bytes are not supported.
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

# A temporary lack of resources (EAGAIN: fork(2)). Any other errno is an error of the command.
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
    """A command line in place of a service. Only `CommandEngine` supports it.

    Args:
        text: the command line. It is split as by a shell, with quotes, but without variables, patterns, pipes
            or redirections.
        shell: pass it to /bin/sh instead, which supports all of those.

    Raises:
        ServiceError: the command line is empty or has an unmatched quote.
        Unavailable: the program does not exist or is not executable. (With `shell`, or if the interpreter of
            a script is missing, each connection reports it: event ServiceFailed.)
    """

    name = "exec"
    summary = "a command for each connection, as inetd does it"
    datagrams = False

    def __init__(self, text: str, *, shell: bool = False) -> None:
        self.text = text
        try:
            self.argv = ["/bin/sh", "-c", text] if shell else shlex.split(text)
        except ValueError as error:
            raise ServiceError(text, str(error).lower(), "close the quote, as in a shell") from error
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
                hint = "is it installed, in a directory of PATH?"
            raise Unavailable("run", program, errno.EACCES if exists else errno.ENOENT, hint)

        self.relay: CommandRelay | None = None
        """The relay of this process's connection, in a relay process; else None."""

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
        """Start the command, with `stdio_fd` as its standard input and output.

        Raises:
            OSError, subprocess.SubprocessError: the command could not be started.
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
    """A command for each connection. The service of its context is a `CommandService`.

    Events: Accepted, ChildExited (role "command") and Closed, whose byte counts are 0, because this process
    does not see the bytes. With a relay, the relay process emits all events of a connection, as any engine
    does. Draining waits for the commands for `limits.drain` seconds, then sends SIGTERM and SIGKILL. If this
    process is killed, the commands continue, because each holds its own connection.
    """

    name = "command"
    summary = "a command for each connection, as inetd does it"
    datagrams = False
    why_not: ClassVar = {
        "datagrams": "a command needs a connection as its input and output, and datagrams have none",
        "supports_push": "the output of a command goes to its own peer",
    }

    kill_delay = 0.0
    termination_signals = (signal.SIGTERM, signal.SIGKILL)
    kill_group = True

    def __init__(self, context: EngineContext) -> None:
        super().__init__(context)
        if not isinstance(context.service, CommandService):
            raise UnsupportedCombination(
                "engine command", f"service {context.service.name}", "it only runs commands"
            )
        self._service = context.service

    @classmethod
    def unsupported_reason(cls, service: Service, endpoint: Endpoint) -> UnsupportedCombination | None:
        if not isinstance(service, CommandService):
            return UnsupportedCombination(
                "engine command", f"service {service.name}", "it only runs commands"
            )
        return super().unsupported_reason(service, endpoint)

    def start_child(
        self, accepted: AcceptedConnection, acceptor: Acceptor, children: ChildSet
    ) -> Child | None:
        """Start the command, or the relay process that starts it."""
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
        # Reaped by Popen.poll(), so that the Popen object has the exit status, too.
        return Child(process.pid, "command", process.poll) if failure is None else None

    def _start_relay(self, accepted: AcceptedConnection, acceptor: Acceptor, children: ChildSet) -> Child:
        def relay() -> None:
            children.close_in_child()
            acceptor.close_in_child()
            self.context.stop.detach_in_child()
            self._service.relay = CommandRelay(self.context, accepted)
            raise SystemExit(self._service.relay.run())

        return fork("command", relay)

    def child_exited(self, accepted: AcceptedConnection, child: Child) -> None:
        """See ChildPerConnection. A relay process has emitted Closed itself."""
        if self.context.observe is not None and not _has_layers(accepted):
            terminated = (
                child.status in (-signal.SIGTERM, -signal.SIGKILL) and self.context.stop.draining.is_set()
            )
            cause = CloseReason.ABORTED if terminated else CloseReason.SERVICE
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

# Variables about the server's own connection, in the environment of a server that inetd, tcpserver or systemd
# has started. A command would take them for those of its connection.
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
    """Return a command's environment: `inherited`, and variables that describe its connection.

    `connection` is None if there are layers, because behind a proxy the credentials of the socket's peer are
    not those of the client. The variables are those of UCSPI (tcp-environ(5), with those of ucspi-tcp6 for
    IPv6; ucspi-unix) and CGI (RFC 3875, section 4.1).
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
    # For an IPv6 connection the TCP* variables are set, too, for programs that know no others.
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
    """Return the credentials of the process that connected (unix(7), SO_PEERCRED)."""
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    except (AttributeError, OSError):  # not Linux
        return {}
    pid, uid, gid = struct.unpack("iII", raw)
    return {"UNIXREMOTEPID": str(pid), "UNIXREMOTEEUID": str(uid), "UNIXREMOTEEGID": str(gid)}


def _reset_signals() -> None:
    """Reset signals to their defaults. Runs in the child, between fork() and exec()."""
    for number in _RESET_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
