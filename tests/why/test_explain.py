"""What `bothends why` says of a process or a socket, whether or not anything is wrong."""

from __future__ import annotations

from bothends.why import Report, Snapshot, make_report
from bothends.why.explain import Subject
from tests.why.programs import Programs, until

SERVE = "connection, _ = listener.accept()\nconnection.recv(1)\n"
EVENT_LOOP = "import select\none, _ = socket.socketpair()\nselect.select([connection, one], [], [])\n"
THREE_THREADS = (
    "import threading\n"
    "for _ in range(2): threading.Thread(target=connection.recv, args=(1,)).start()\n"
    "connection.recv(1)\n"
)


def report(subject: Subject, waits: dict[int, int]) -> Report:
    """Return the report on a subject once each of these processes waits for as many things as it says."""

    def is_waiting(snapshot: Snapshot) -> bool:
        threads = [thread for thread in snapshot.threads() if thread.pid in waits]
        found = [(thread.pid, wait) for thread in threads if thread.call for wait in thread.call.waits]
        return all(sum(pid == each for each, _ in found) == count for pid, count in waits.items())

    return make_report(until(is_waiting, *waits), subject)


def test_only_a_wait_for_several_descriptors_is_that_of_an_event_loop(programs: Programs) -> None:
    server, client, _ = programs.pair(SERVE, EVENT_LOOP)
    for pid, is_event_loop in ((server, False), (client, True)):
        texts = [
            each.text for each in report(Subject("test", pids=(pid,)), {server: 1, client: 2}).statements
        ]
        assert any("which task or callback" in text for text in texts) is is_event_loop


def test_two_threads_that_wait_for_a_socket_are_described(programs: Programs) -> None:
    server, client, port = programs.pair(SERVE, THREE_THREADS)
    statements = report(Subject("test", port=port), {server: 1, client: 3}).statements
    of_client = [each for each in statements if f"client.py[{client}]" in each.text and each.depth]
    assert len(of_client) == 2
