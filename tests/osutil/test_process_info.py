from __future__ import annotations

import os
import resource
import subprocess
import sys

from bothends.osutil import process_info


def test_read_process_own_and_missing() -> None:
    me = process_info.read_process(os.getpid())
    assert me is not None
    assert (me.pid, me.parent, me.group) == (os.getpid(), os.getppid(), os.getpgrp())
    assert me.cpu > 0
    assert me.rss > 1_000_000
    assert not me.is_zombie
    assert process_info.read_process(2**22 + 1) is None  # beyond the largest pid_max: proc(5)


def test_process_tree_of_child() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in {each.pid for each in process_info.process_tree(os.getpid())}
        assert [each.pid for each in process_info.process_tree(child.pid)] == [child.pid]
        child.communicate(b"\n")
    assert process_info.process_tree(child.pid) == []


def test_limit_descriptors_counts_gaps() -> None:
    program = (
        "import os\n"
        "print(flush=True)\n"
        "input()\n"
        "count = 0\n"
        "try:\n"
        "    while True:\n"
        "        os.dup(0)\n"
        "        count += 1\n"
        "except OSError:\n"
        "    print(count)\n"
    )
    gap = os.dup(0)  # a descriptor above a gap, in the child too
    far = os.dup2(0, 40)
    for spare in (0, 1, 5):
        with subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[far]
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            before = process_info.limit_descriptors(child.pid, spare)
            assert before == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            assert int(child.communicate(b"\n")[0]) == spare
    os.close(gap)
    os.close(far)


def test_descriptors() -> None:
    reader, writer = os.pipe()
    found = process_info.descriptors()
    assert found[reader] == found[writer]
    assert found[reader].startswith("pipe:")
    os.close(reader)
    os.close(writer)
    assert reader not in process_info.descriptors()
    assert process_info.descriptors(2**22 + 1) == {}


def test_name_may_hold_any_character() -> None:
    program = "open('/proc/self/comm', 'w').write(') Z 1 (x) S'); print(flush=True); input()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = process_info.read_process(child.pid)
        child.communicate(b"\n")
    assert found is not None
    assert (found.name, found.parent, found.is_zombie) == (") Z 1 (x) S", os.getpid(), False)
