"""Rules about connections that were refused: port, address, protocol, and the order of events. Pure.

A program that was refused and connected otherwise draws no finding: it tried the next address, or tried
again.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Final

from bothends.trace.capture.calls import ACCEPTING, RECEIVING
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.findings.endpoints import (
    INTERPRETERS,
    REFUSED,
    Attempt,
    Binding,
    attempts,
    bound_sockets,
    capitalized,
    has_recovered,
    is_used,
    listeners,
    name_of,
    program_of,
    runs,
)
from bothends.trace.model import Call, Packet, SocketAddress
from bothends.trace.rendering import formatting

# A connection that is refused while the listener closes may start before the close() does.
_RACE_NS: Final = 2_000_000
_MANY_PORTS: Final = 3  # refused at this number of ports, a program looks for open ones
_NUL: Final = r"\x00"  # in the text of an abstract name
# Folders of sockets that libraries look for: nscd, the journal, D-Bus, X11. Programs run without them.
_OF_THE_SYSTEM: Final = ("/run/", "/var/run/", "/dev/", "/tmp/.X11-unix/", "@/tmp/.X11-unix/")


def swapped_port(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find a byte-swapped port: 12000 (0x2ee0) becomes 57390 (0xe02e)."""
    bound = [*listeners(trace_index), *bound_sockets(trace_index, "datagram")]
    by_port: dict[int, list[Binding]] = {}
    for each in bound:
        if each.address.port:
            by_port.setdefault(each.address.port, []).append(each)
    connected = {each.connect.number for each in attempts(trace_index) if each.is_connected}
    for call in trace_index.calls:
        target = call.address
        if target is None or call.name not in ("connect", "sendto", "sendmsg") or not target.port:
            continue
        if target.port in by_port or (swapped := _swap_bytes(target.port)) not in by_port:
            continue
        if call.number in connected or _receives_from(trace_index, call):
            continue
        for each in by_port[swapped]:
            wrong, right = (call, each.call) if target.port > swapped else (each.call, call)
            yield Finding(
                "swapped-port",
                "The bytes of a port are in the wrong order",
                f"{capitalized(name_of(trace_index, each.process))} has port {swapped}, and "
                f"{name_of(trace_index, call.process)} uses {target.port}: the same two bytes in reverse "
                f"order (0x{swapped:04x}, 0x{target.port:04x}).",
                "Convert the port to network byte order before you store it in sockaddr_in, at both ends.",
                (each.call.number, call.number),
                process=wrong.process if right.process != wrong.process else call.process,
                sockets=tuple(filter(None, (call.socket, each.socket.number))),
                in_c="address.sin_port = htons(port);",
                in_python='sock.connect((host, port))  # no htons(); in struct.pack(): "!H"',
            )
            return


def _receives_from(trace_index: TraceIndex, call: Call) -> bool:
    """Return whether the socket of a call received something from the address that the call names."""
    calls = trace_index.calls_by_socket[call.socket or 0]
    return any(each.name in RECEIVING and each.size and each.address == call.address for each in calls)


def _swap_bytes(port: int) -> int:
    return (port & 0xFF) << 8 | port >> 8


@lru_cache(maxsize=1)
def _refusals(trace_index: TraceIndex) -> list[Finding]:
    """Return a finding for each refused connection that the program did not replace by another."""
    failed = [each for each in attempts(trace_index) if each.error in REFUSED]
    listening = listeners(trace_index) if failed else []
    places: dict[str, set[SocketAddress]] = {}
    for each in failed:
        places.setdefault(program_of(trace_index, each.process), set()).add(each.target)
    seen = set()
    found = []
    for each in failed:
        program = program_of(trace_index, each.process)
        if (program, each.target) in seen or has_recovered(trace_index, each):
            continue
        if len({target.port for target in places[program]}) >= _MANY_PORTS:
            continue
        seen.add((program, each.target))
        finding = _explain(trace_index, each, listening)
        if finding is not None:
            found.append(finding)
    return found


def _explain(trace_index: TraceIndex, attempt: Attempt, listening: list[Binding]) -> Finding | None:
    """Return why a connection was refused, the most precise reason first."""
    at, target = attempt.connect.at, attempt.target
    until = attempt.shown_by.at if isinstance(attempt.shown_by, Packet) else attempt.connect.until or at
    reached = [each for each in listening if each.is_reached_by(target)]
    for each in reached:
        if each.is_open_at(at) and each.is_open_at(until + _RACE_NS):
            if target.port is None:
                return _other_folder(trace_index, attempt, each)
            if not _has_served(trace_index, each):
                return _other_namespace(trace_index, attempt, each)
    for each in reversed(reached):
        if each.until is not None and each.until <= until + _RACE_NS:
            return _listener_gone(trace_index, attempt, each)
    for each in reached:
        if each.since > at and not _went_on(trace_index, attempt):
            return _too_early(trace_index, attempt, each)
    for each in listening:
        if target.port is not None and each.address.port == target.port and each.is_open_at(at):
            return _elsewhere(trace_index, attempt, each)
    for each in bound_sockets(trace_index, "stream", "seqpacket"):
        if each.is_reached_by(target) and each.is_open_at(at) and not each.socket.is_listener:
            return _never_listens(trace_index, attempt, each)
    if target.port is not None:
        for each in bound_sockets(trace_index, "datagram"):
            if each.address.port == target.port and each.is_open_at(at):
                return _tcp_to_udp(trace_index, attempt, each)
    return _no_listener(trace_index, attempt, listening)


def _has_served(trace_index: TraceIndex, binding: Binding) -> bool:
    """Return whether a listener accepted a traced client: then both are in one network namespace.

    A refusal while it listens means that its process was about to exit.
    """
    return any(
        socket.accepted_from == binding.socket.number and trace_index.peer_of(socket.number) is not None
        for socket in trace_index.trace.sockets.values()
    )


def _finding(
    trace_index: TraceIndex,
    attempt: Attempt,
    rule: str,
    title: str,
    text: str,
    remedy: str,
    binding: Binding | None = None,
    cause: Call | None = None,
    **fields: object,
) -> Finding:
    shown = attempt.shown_by
    evidence = {attempt.connect.number, shown.number if shown is not None else attempt.connect.number}
    evidence |= {cause.number} if cause is not None else set()
    evidence |= {binding.call.number} if binding is not None else set()
    fields.setdefault("process", attempt.process)
    sockets = (attempt.socket.number, *((binding.socket.number,) if binding is not None else ()))
    return Finding(rule, title, text, remedy, tuple(sorted(evidence)), sockets=sockets, **fields)  # type: ignore[arg-type]


def _too_early(trace_index: TraceIndex, attempt: Attempt, binding: Binding) -> Finding:
    early = formatting.duration(binding.since - attempt.connect.at)
    return _finding(
        trace_index,
        attempt,
        "refused-too-early",
        "The client connected before the server listened",
        f"The connection to {attempt.target} was refused {early} before "
        f"{name_of(trace_index, binding.process)} listened on {binding.address}, and "
        f"{name_of(trace_index, attempt.process)} did not try again.",
        "Try again after a delay, or start the client when the server reports that it is ready.",
        binding,
        in_c="while (connect(fd, a, n) < 0 && errno == ECONNREFUSED) { close(fd); fd = socket(...); }",
        in_python="except ConnectionRefusedError: time.sleep(0.1)  # and connect a new socket",
    )


def _elsewhere(trace_index: TraceIndex, attempt: Attempt, binding: Binding) -> Finding:
    family = _family(attempt.target) != _family(binding.address)
    everywhere = "::" if ":" in attempt.target.host else "0.0.0.0"
    return _finding(
        trace_index,
        attempt,
        "refused-elsewhere",
        "The server listens on another address than the client connects to",
        f"{capitalized(name_of(trace_index, attempt.process))} connects to {attempt.target} and is refused: "
        f"{name_of(trace_index, binding.process)} listens on {binding.address}"
        + (", another address family." if family else " only."),
        f"Bind the server to {everywhere} (every address), or connect to {binding.address}.",
        binding,
        in_c="server.sin6_addr = in6addr_any; setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);"
        if family
        else "server.sin_addr.s_addr = htonl(INADDR_ANY);",
        in_python='socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)'
        if family
        else 'server.bind(("", port))',
    )


def _other_namespace(trace_index: TraceIndex, attempt: Attempt, binding: Binding) -> Finding:
    return _finding(
        trace_index,
        attempt,
        "refused-elsewhere",
        "The server is probably in another network namespace",
        f"{capitalized(name_of(trace_index, attempt.process))} connects to {attempt.target} and is refused, "
        f"although {name_of(trace_index, binding.process)} listens on {binding.address}: probably in another "
        f"network namespace (a container), whose {binding.address.host} is not the same address.",
        "Connect to the address that the container has on the shared network, or publish its port.",
        binding,
        certainty="inferred",
        basis="a socket listens at that address, and the kernel refused the connection",
    )


def _other_folder(trace_index: TraceIndex, attempt: Attempt, binding: Binding) -> Finding:
    client, server = name_of(trace_index, attempt.process), name_of(trace_index, binding.process)
    relative = not attempt.target.host.startswith("/")
    why = "a relative path is looked up in the current directory of each" if relative else "its file is gone"
    return _finding(
        trace_index,
        attempt,
        "refused-elsewhere",
        "The path of the UNIX socket is another file for the client",
        f"{capitalized(client)} connects to {attempt.target} and gets {attempt.error}, although {server} "
        f"listens on {binding.address}: {why}, or another program removed or replaced it.",
        "Use the same absolute path in both programs, and remove the file only when the server ends.",
        binding,
        certainty="inferred",
        basis="a socket listens at a path of the same name",
    )


def _listener_gone(trace_index: TraceIndex, attempt: Attempt, binding: Binding) -> Finding:
    assert binding.until is not None
    ended = trace_index.ended_at(binding.process)
    how = "exited" if ended is not None and ended <= attempt.connect.at else "closed its listener"
    earlier = formatting.duration(attempt.connect.at - binding.until)
    return _finding(
        trace_index,
        attempt,
        "refused-after-close",
        "The server no longer listens",
        f"{capitalized(name_of(trace_index, binding.process))} {how} {earlier} before the connection to "
        f"{attempt.target}, which was therefore refused.",
        "Keep the listener open, and call accept() in a loop, as long as clients may come.",
        binding,
        process=binding.process,
        in_c="for (;;) { int c = accept(listener, NULL, NULL); serve(c); close(c); }",
        in_python="while True: connection, _ = listener.accept(); serve(connection)",
    )


def _never_listens(trace_index: TraceIndex, attempt: Attempt, binding: Binding) -> Finding:
    server = name_of(trace_index, binding.process)
    return _finding(
        trace_index,
        attempt,
        "accept-without-listen",
        "The server never calls listen()",
        f"{capitalized(server)} bound {binding.address} but did not call listen(), so the kernel refuses the "
        f"connection of {name_of(trace_index, attempt.process)}.",
        "Call listen() between bind() and accept().",
        binding,
        process=binding.process,
        in_c="listen(fd, 128);",
        in_python="sock.listen()",
    )


def _tcp_to_udp(trace_index: TraceIndex, attempt: Attempt, binding: Binding) -> Finding:
    return _finding(
        trace_index,
        attempt,
        "tcp-to-udp",
        "The client uses TCP, and the server uses UDP",
        f"{capitalized(name_of(trace_index, attempt.process))} connects to TCP port {attempt.target.port}, "
        f"and {name_of(trace_index, binding.process)} has UDP port {binding.address.port}: these are two "
        "different ports, and no socket listens at the first.",
        "Use the same protocol at both ends.",
        binding,
        in_c="fd = socket(AF_INET, SOCK_DGRAM, 0);  /* or SOCK_STREAM and listen() in the server */",
        in_python="sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    )


def _no_listener(trace_index: TraceIndex, attempt: Attempt, listening: list[Binding]) -> Finding | None:
    """Return a finding about a target that no traced program has, if that is a mistake."""
    at, target, client = attempt.connect.at, attempt.target, name_of(trace_index, attempt.process)
    program = program_of(trace_index, attempt.process)
    if target.port is None and target.host.startswith(_OF_THE_SYSTEM):
        return None
    ended = trace_index.ended_at(attempt.process) is not None
    failed = ended and bool(trace_index.process(attempt.process).status)
    failed = failed and not _went_on(trace_index, attempt)
    unused = [
        each
        for each in listening
        if (each.address.port is None) == (target.port is None)
        and each.is_open_at(at)
        and program_of(trace_index, each.process) != program
        and (target.port is None or each.is_reached_by(target._replace(port=each.address.port)))
        and not is_used(trace_index, each)
    ]
    failed_bind = next((call for call in trace_index.calls if _failed_to_bind(call, target)), None)
    is_client = failed_bind is None and not any(
        program_of(trace_index, each.process) == program for each in listening
    )
    if len(unused) == 1 and is_client and unused[0].address.port != _swap_bytes(target.port or 0):
        what = "path" if target.port is None else "port"
        padded = _abstract_names_of_other_lengths(trace_index, attempt, unused[0])
        if padded is not None:
            return padded
        port_0 = _bound_port_0(trace_index, unused[0])
        return _finding(
            trace_index,
            attempt,
            "refused-other-port",
            f"The client connects to another {what} than the server's",
            f"{capitalized(client)} connects to {target}, where nothing listens; "
            f"{name_of(trace_index, unused[0].process)} listens on {unused[0].address}, and nothing has "
            f"connected there.{port_0}",
            f"Use the same {what} in both programs."
            + " In C, convert a port with htons(), which takes 16 bits." * bool(port_0),
            unused[0],
            in_c="address.sin_port = htons(port);" if port_0 else "",
        )
    if not failed and failed_bind is None:
        return None
    if target.port is None:
        is_file = attempt.error == "ECONNREFUSED"
        return _finding(
            trace_index,
            attempt,
            "refused",
            "No socket listens at the path where the client connects",
            f"{capitalized(client)} connects to {target} and gets {attempt.error}: "
            + (
                "the file exists, probably from an earlier run, but no socket listens there."
                if is_file
                else "there is no such file."
            ),
            "Start the server first, and use the same absolute path in both programs; ss -xlp lists them.",
            certainty="inferred" if is_file else "seen",
            basis="no traced program has that path open" if is_file else "",
        )
    return _finding(
        trace_index,
        attempt,
        "refused",
        "No socket listens where the client connects",
        f"{capitalized(client)} connects to {target} and is refused: no socket listens there.",
        "Start the server first, and check its address and port with bothends sockets or ss -ltn.",
        cause=failed_bind,
    )


def _abstract_names_of_other_lengths(
    trace_index: TraceIndex, attempt: Attempt, binding: Binding
) -> Finding | None:
    """Return the finding for two abstract names of which one has NUL bytes at its end, or None.

    Every byte within the length that bind() and connect() get is a part of the name (unix(7)).
    """
    asked, bound = attempt.target.host, binding.address.host
    name = _without_nuls(asked)
    if not asked.startswith("@") or name != _without_nuls(bound):
        return None
    client, server = name_of(trace_index, attempt.process), name_of(trace_index, binding.process)
    extra = abs(len(asked) - len(bound)) // len(_NUL)
    longer, shorter = (client, server) if len(asked) > len(bound) else (server, client)
    return _finding(
        trace_index,
        attempt,
        "refused-other-port",
        "The abstract names of the two sockets differ in NUL bytes at their end",
        f"{capitalized(client)} connects to {name} and gets {attempt.error}. The name of {longer} has "
        f"{extra} NUL bytes more at its end than that of {shorter}: in an abstract name all bytes count, up "
        "to the length of the address.",
        "Pass the exact length of the address at both ends; sizeof of the whole struct adds NUL bytes.",
        binding,
        in_c="socklen_t size = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name);",
        in_python='sock.bind("\\0" + name)   # the length is that of the text',
    )


def _without_nuls(name: str) -> str:
    while name.endswith(_NUL):
        name = name.removesuffix(_NUL)
    return name


def _bound_port_0(trace_index: TraceIndex, binding: Binding) -> str:
    """Return why a compiled server that bound port 0, and never asked for its port, did so; or ""."""
    calls = trace_index.calls_by_socket[binding.socket.number]
    binds = [call for call in calls if call.name == "bind" and call.address is not None]
    if not binds or binds[0].address is None or binds[0].address.port != 0:
        return ""
    asks = any(call.name == "getsockname" for call in calls)
    if asks or runs(trace_index, binding.process, *INTERPRETERS):
        return ""
    return (
        " It bound port 0, for which the kernel chose this one: htonl() of a port leaves 0 in sin_port, as "
        "does a port that was never set."
    )


def _failed_to_bind(call: Call, target: SocketAddress) -> bool:
    has_port = call.address is not None and call.address.port == target.port
    return call.name == "bind" and call.failed and has_port


def _went_on(trace_index: TraceIndex, attempt: Attempt) -> bool:
    """Return whether the program accepted a connection or transferred data later: it can do without."""
    return any(
        call.at > attempt.connect.at
        and not call.failed
        and call.socket is not None
        and (call.size > 0 or (call.name in ACCEPTING and call.created_id is not None))
        for call in trace_index.calls_by_process[attempt.process]
    )


def _only(rule: str, trace_index: TraceIndex) -> Iterator[Finding]:
    return (each for each in _refusals(trace_index) if each.rule == rule)


refused_too_early = partial(_only, "refused-too-early")
refused_elsewhere = partial(_only, "refused-elsewhere")
refused_after_close = partial(_only, "refused-after-close")
refused_other_port = partial(_only, "refused-other-port")
refused = partial(_only, "refused")
tcp_to_udp = partial(_only, "tcp-to-udp")


def accept_without_listen(trace_index: TraceIndex) -> Iterator[Finding]:
    """Find accept() on a socket that does not listen, or a client that such a socket refuses."""
    found = list(_only("accept-without-listen", trace_index))
    yield from found
    concerned = {number for each in found for number in each.sockets}
    for call in trace_index.calls_named(*ACCEPTING):
        if call.error not in ("EINVAL", "EOPNOTSUPP"):
            continue
        if call.socket is None or call.socket in concerned:
            continue
        socket = trace_index.trace.sockets[call.socket]
        concerned.add(socket.number)
        if any(each.name == "shutdown" for each in trace_index.calls_by_socket[socket.number]):
            continue  # shutdown() of a listener wakes a thread in accept() with EINVAL
        is_datagram = socket.kind == "datagram"
        yield Finding(
            "accept-without-listen",
            "accept() on a socket that does not listen",
            f"accept failed with {call.error}: {name_of(trace_index, call.process)} "
            + (
                "has a datagram socket, which has no connections to accept."
                if is_datagram
                else f"did not call listen() on descriptor {call.descriptor} before."
            ),
            "Receive datagrams with recvfrom()."
            if is_datagram
            else "Call listen() between bind() and accept().",
            (*_binds_of(trace_index, call), call.number),
            process=call.process,
            sockets=(socket.number,),
            in_c="recvfrom(fd, ...)" if is_datagram else "listen(fd, 128);",
            in_python="sock.recvfrom(65535)" if is_datagram else "sock.listen()",
        )


def _binds_of(trace_index: TraceIndex, call: Call) -> tuple[int, ...]:
    calls = trace_index.calls_by_socket[call.socket or 0]
    return tuple(each.number for each in calls if each.name in ("bind", "listen"))


def _family(address: SocketAddress) -> int:
    return 6 if ":" in address.host else 4
