"""Mutations of the C code: the core of the engine `native`, and the load generator."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutation import Mutation

_CONTRACT: Final = "tests/engines/test_native_contract.py"
_URING: Final = f"{_CONTRACT}::TestUring"
# With an observer of problems only, conversations run in C.
_IN_C: Final = "tests/engines/test_native_fallback.py::TestUringWithoutTrafficObserver"
_LIMITS: Final = "tests/engines/test_native_limits.py"
_EPOLL: Final = f"{_CONTRACT}::TestEpoll"
_COUNTED: Final = "tests/engines/test_counted.py"
_POLLING: Final = "tests/engines/test_native_polling.py"
_LOG: Final = "tests/engines/test_native_log.py"
_NATIVE: Final = "tests/engines/test_native.py"
_FAULTS: Final = "tests/bench/test_faults.py"
_GENERATOR: Final = f"{_FAULTS} tests/bench/test_transports.py"

MUTATIONS: Final = (
    # Of the core
    Mutation(
        name="native-log-shows-invisible-characters",
        file="native/traffic_log.c",
        old="if (!Py_UNICODE_ISPRINTABLE(character) || is_invisible(character)) {",
        new="if (!Py_UNICODE_ISPRINTABLE(character)) {",
        breaks="a peer writes characters into the log that nobody sees",
        tests=_LOG,
    ),
    Mutation(
        name="native-log-escapes-once-in-json",
        file="native/traffic_log.c",
        old="    *out++ = '\\\\';\n    if (is_json)\n        *out++ = '\\\\';\n",
        new="    *out++ = '\\\\';\n",
        breaks="a record with a control character is not valid JSON",
        tests=_LOG,
    ),
    Mutation(
        name="native-log-forgets-a-fragment",
        file="native/traffic_log.c",
        old="    self->flags |= LOG_HELD;\n    if (data",
        new="    if (data",
        breaks="the end of a line that came in pieces is logged as a line of its own",
        tests=f"{_LOG}::test_fragments_of_a_line_are_joined",
    ),
    Mutation(
        name="native-lines-forget-the-beginning",
        file="native/lines.c",
        old="return is_whole && !continues && size",
        new="return is_whole && size",
        breaks="a line whose beginning came before is answered without it",
        tests="tests/engines/test_native_lines.py",
    ),
    Mutation(
        name="native-lines-keep-cr",
        file="native/lines.c",
        old=" && memchr(data, '\\r', size) == NULL;",
        new=";",
        breaks="a function gets lines that end with CR",
        tests="tests/engines/test_native_lines.py",
    ),
    Mutation(
        name="native-generation-unchecked",
        file="native/core.c",
        old="slot->kind == SLOT_FREE || slot->generation != ((user_data >> 32) & (GENERATIONS - 1)))",
        new="slot->kind == SLOT_FREE)",
        breaks="a late report on a closed connection is taken for one on the connection that reuses its slot",
        tests=f"{_NATIVE}::test_event_of_a_descriptor_that_is_not_watched_any_more_is_dropped",
    ),
    Mutation(
        name="native-cut-off-sends-fin",
        file="native/connection.c",
        old="(reset ? RESET_ON_CLOSE : 0)",
        new="0",
        breaks="an answer that is cut off ends with FIN, as if it were whole",
        tests=f"{_LIMITS} {_IN_C}",
    ),
    Mutation(
        name="native-accept-waits-out-the-pause",
        file="native/connection.c",
        old="        core->accept_retry_at = core->now; /* a descriptor",
        new="        (void)0; /* a descriptor",
        breaks="accept() is not tried again when a descriptor is free, but only after the pause",
        tests="tests/engines/test_descriptor_limit.py",
    ),
    Mutation(
        name="native-reads-not-resumed",
        file="native/connection.c",
        old="        self->flags &= ~(uint32_t)READ_PAUSED;\n}",
        new="        ;\n}",
        breaks="a connection that paused reading, because its answers were not read, never reads again",
        tests=f"{_LIMITS} {_IN_C}",
    ),
    Mutation(
        name="native-linger-unlimited",
        file="native/connection.c",
        old="    if (self->state == STATE_LINGERING)\n"
        "        connection_step(self, INPUT_LINGER_EXPIRED);\n    else if (self->flags",
        new="    if (self->state == STATE_LINGERING)\n        ;\n    else if (self->flags",
        breaks="a peer that never closes after our FIN keeps its connection for ever",
        tests=_LIMITS,
    ),
    Mutation(
        name="native-lifetime-from-last-activity",
        file="native/connection.c",
        old="life_deadline = self->timeout_start + core->max_lifetime;",
        new="life_deadline = self->last_activity + core->max_lifetime;",
        breaks="the lifetime of a connection never expires as long as its peer sends",
        tests=_LIMITS,
    ),
    Mutation(
        name="native-flushing-resets",
        file="native/connection_state.c",
        old="[INPUT_FLUSHED] = TO(LINGERING, SHUTDOWN),",
        new="[INPUT_FLUSHED] = TO(CLOSED, CLOSE),",
        breaks="a connection is closed with unread input after the last byte, which resets it",
        tests="tests/engines/test_connection_state.py",
    ),
    Mutation(
        name="native-queue-offset-kept",
        file="native/write_queue.c",
        old="        Py_DECREF(queue->head);\n        queue->offset = 0;",
        new="        Py_DECREF(queue->head);",
        breaks="after a chunk was sent in two parts, the beginning of the next one is left out",
        tests=_EPOLL,
    ),
    Mutation(
        name="native-emfile-not-paused",
        file="native/listener.c",
        old="    case EMFILE:\n    case ENFILE:",
        new="    case ENFILE:",
        breaks="at the descriptor limit accept() is called again and again, without a pause",
        tests=f"{_NATIVE}::test_descriptor_limit_pauses_accepting",
    ),
    # io_uring
    Mutation(
        name="native-uring-end-after-ours-ignored",
        file="native/backend_uring.c",
        old="    if (cqe->res == 0)\n        return connection_on_eof(connection);",
        new="    if (cqe->res == 0)\n"
        "        return connection->state == STATE_LINGERING ? 0 : connection_on_eof(connection);",
        breaks="the peer's EOF after our FIN is ignored: the connection is closed two seconds later",
        tests=f"{_NATIVE}::test_connection_ends_with_the_peers_eof_after_our_own",
    ),
    Mutation(
        name="native-uring-receive-not-rearmed",
        file="native/backend_uring.c",
        old="        connection->flags &= ~(uint32_t)(RECV_ARMED | RECV_CANCEL_SENT);\n",
        new="        connection->flags &= ~(uint32_t)RECV_CANCEL_SENT;\n",
        breaks="a receive that ended, for example because no buffer was free, is never armed again",
        tests=f"{_NATIVE} {_IN_C}",
        facts=(1,),
    ),
    Mutation(
        name="native-uring-receive-not-cancelled",
        file="native/backend_uring.c",
        old="== RECV_ARMED && !wants_read\n        && !(self->flags & EOF_RECEIVED)) {",
        new="== RECV_ARMED && !wants_read\n        && self->flags & EOF_RECEIVED) {",
        breaks="a peer that never reads its answers is read without a limit",
        tests=f"{_LIMITS} {_IN_C}",
        facts=(2,),
    ),
    Mutation(
        name="native-uring-receive-of-closed-kept",
        file="native/backend_uring.c",
        old="RECV_ARMED && !wants_read\n        && !(self->flags & EOF_RECEIVED)) {",
        new="RECV_ARMED && !wants_read\n        && !(self->flags & (EOF_RECEIVED | CLOSE_PENDING))) {",
        breaks="a connection waits for its receive, which nobody cancels, and is never closed",
        tests=_LIMITS,
        facts=(3,),
    ),
    Mutation(
        name="native-uring-two-sends-in-flight",
        file="native/backend_uring.c",
        old="} else if (self->queue.unsent && !(self->flags & SEND_INFLIGHT) && submitted)",
        new="} else if (self->queue.unsent && submitted)",
        breaks="bytes that are being sent are sent again",
        tests=f"{_LIMITS} {_IN_C}",
        facts=(4,),
    ),
    Mutation(
        name="native-uring-epoll-polled-once",
        file="native/backend_uring.c",
        old="        core->epoll_poll_armed = false;\n        return epoll_poll_once(core);",
        new="        return epoll_poll_once(core);",
        breaks="after one event the epoll set is not waited for any more: no datagrams, no stop",
        tests=_URING,
        facts=(5,),
    ),
    Mutation(
        name="native-uring-completions-not-asked-for",
        file="native/ring.c",
        old="IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &argument",
        new="(min_complete ? IORING_ENTER_GETEVENTS : 0) | IORING_ENTER_EXT_ARG, &argument",
        breaks="calls that do not wait take no completions",
        tests=_POLLING,
        facts=(1,),
    ),
    Mutation(
        name="native-uring-busy-poll-blind",
        file="native/ring.c",
        old="    return ring_has_completion(ring)\n"
        "           || __atomic_load_n(ring->sq_flags, __ATOMIC_RELAXED) & (IORING_SQ_TASKRUN | "
        "IORING_SQ_CQ_OVERFLOW);",
        new="    return ring_has_completion(ring);",
        breaks="busy polling does not notice that there are completions to ask for",
        tests=_POLLING,
        facts=(2,),
    ),
    Mutation(
        name="native-uring-buffers-not-returned",
        file="native/ring.c",
        old="    __atomic_store_n(&ring->buffer_ring->tail, ring->buffer_ring_tail, __ATOMIC_RELEASE);",
        new="    if (ring->buffer_ring_tail <= ring->sizes.buffers)\n"
        "        __atomic_store_n(&ring->buffer_ring->tail, ring->buffer_ring_tail, __ATOMIC_RELEASE);",
        breaks="buffers are used once, and then nothing is received any more",
        tests=f"{_NATIVE} {_IN_C}",
        facts=(3,),
    ),
    Mutation(
        name="native-uring-buffer-stride",
        file="native/ring.c",
        old="    return ring->buffers + (size_t)index * (ring->sizes.buffer_size + BUFFER_PADDING);",
        new="    return ring->buffers + (size_t)index * BUFFER_PADDING;",
        breaks="buffers overlap, so that one peer's bytes overwrite those of another",
        tests=f"{_NATIVE} {_IN_C}",
        facts=(4,),
    ),
    Mutation(
        name="native-uring-overflow-not-taken",
        file="native/ring.c",
        old="                IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &argument",
        new="                (*ring->sq_flags & IORING_SQ_CQ_OVERFLOW ? 0 : IORING_ENTER_GETEVENTS) | "
        "IORING_ENTER_EXT_ARG, &argument",
        breaks="completions that did not fit into the queue are never taken",
        tests=f"{_NATIVE}::test_full_completion_queue",
        facts=(5,),
    ),
    # epoll
    Mutation(
        name="native-epoll-hangup-ignored",
        file="native/backend_epoll.c",
        old="    else if (events & (EPOLLERR | EPOLLHUP) && !self->queue.unsent) {",
        new="    else if (false) {",
        breaks="a connection that breaks while it is neither read nor written uses a whole CPU",
        tests="tests/engines/test_epoll.py",
    ),
    Mutation(
        name="native-epoll-write-interest-lost",
        file="native/backend_epoll.c",
        old="    wanted |= self->queue.unsent ? EPOLL_WANTS_OUT : 0;",
        new="",
        breaks="the rest of an answer that did not fit into the send buffer is never sent",
        tests=_EPOLL,
    ),
    # Datagrams
    Mutation(
        name="native-datagrams-sixty-three",
        file="native/datagram_server.c",
        old="    for (int i = 0; i < count && status == 0; i++)\n        status = answer_one",
        new="    for (int i = 0; i < count - (count == DATAGRAM_BATCH) && status == 0; i++)\n"
        "        status = answer_one",
        breaks="the last datagram of a full batch gets no answer",
        tests=f"{_NATIVE} {_IN_C}",
        facts=(1,),
    ),
    Mutation(
        name="native-datagrams-gso-unequal",
        file="native/datagram_server.c",
        old="        if (next_size < size)\n            break;",
        new="",
        breaks="answers of different sizes to one peer are cut at other places than their ends",
        tests=f"{_NATIVE} {_IN_C}",
        facts=(2,),
    ),
    Mutation(
        name="native-datagrams-gso-not-one-by-one",
        file="native/datagram_server.c",
        old="    for (size_t i = first; i < first + count; i++) {\n        struct msghdr message;",
        new="    for (size_t i = first; i < first; i++) {\n        struct msghdr message;",
        breaks="answers that exceed the path MTU together are lost, where each alone is sent",
        tests=f"{_NATIVE}::test_answers_longer_than_the_mtu_are_sent_one_by_one",
        facts=(2,),
    ),
    Mutation(
        name="native-datagrams-source-address",
        file="native/datagram_server.c",
        old="server->wildcard ? reply_pktinfo(&received_msg->msg_hdr) : NULL;",
        new="NULL;",
        breaks="an answer comes from another address than the one that was asked",
        tests=f"{_NATIVE} {_IN_C}",
        facts=(3,),
    ),
    Mutation(
        name="native-datagrams-loss-not-reported",
        file="native/datagram_server.c",
        old="    return report_reply_dropped(server, reply, error);",
        new="    return 0;",
        breaks="nobody learns of an answer that could not be sent",
        tests=f"{_NATIVE} {_IN_C}",
        facts=(4,),
    ),
    Mutation(
        name="native-datagrams-loop-never-ends",
        file="native/datagram_server.c",
        old="    guard->drops_left = LOOP_DROPS - 1;\n    return true;",
        new="    return false;",
        breaks="two services that answer any datagram answer each other for ever",
        tests=_IN_C,
        facts=(5,),
    ),
    # Counting
    Mutation(
        name="native-counts-lives-as-idle",
        file="native/connection.c",
        old="reason = idle_deadline <= life_deadline ? CLOSED_IDLE : CLOSED_LIFE;",
        new="reason = CLOSED_IDLE;",
        breaks="a connection that reached its greatest age is counted as closed for being idle",
        tests=_COUNTED,
    ),
    Mutation(
        name="native-counts-reset-after-the-end",
        file="native/connection.c",
        old="    if (self->state != STATE_LINGERING)\n        self->reason = reason;",
        new="    self->reason = reason;",
        breaks="a client that resets after the last answer is counted as a connection that was lost",
        tests=_COUNTED,
    ),
    Mutation(
        name="native-counts-service-as-peer",
        file="native/connection.c",
        old="        self->reason = CLOSED_BY_SERVICE;\n",
        new="        ;\n",
        breaks="a conversation that the service ended is counted as ended by the peer",
        tests=_COUNTED,
    ),
    Mutation(
        name="native-counts-last-word-twice",
        file="native/counters.c",
        old="        counters[i] = (uint64_t *)core->counted.buf + offset;",
        new="        counters[i] = (uint64_t *)core->counted.buf + (offset & ~(size_t)1);",
        breaks="two counters that are next to each other share a word",
        tests=_COUNTED,
    ),
    Mutation(
        name="native-counts-no-datagram-bytes",
        file="native/datagram_server.c",
        old="    for (size_t i = 0; i < number; i++)\n        core_count_up(",
        new="    for (size_t i = 1; i < number; i++)\n        core_count_up(",
        breaks="the bytes of the first answer of each batch are not counted",
        tests=_COUNTED,
    ),
    # The load generator
    Mutation(
        name="native-generator-desynced-kept",
        file="native/generator/tracker.c",
        old="    connection->partial_size = 0;\n    connection->desynced = true;\n}\n\n/* Split",
        new="    connection->partial_size = 0;\n}\n\n/* Split",
        breaks="after a wrong answer of a script, which has no line ends, its connection is used on",
        tests=f"{_FAULTS}::test_script_uses_no_connection_after_a_fault",
        slow=True,
    ),
    Mutation(
        name="native-generator-lost-not-counted",
        file="native/generator/tracker.c",
        old="    run->faults[FAULT_LOST] += connection->pending_count;",
        new="",
        breaks="requests on connections that the server closed are not counted as lost",
        tests=_GENERATOR,
    ),
    Mutation(
        name="native-generator-duplicates-pass",
        file="native/generator/tracker.c",
        old="run->numbered && connection->next_request ? FAULT_DUPLICATED : FAULT_WRONG",
        new="FAULT_WRONG",
        breaks="a second answer to one request counts as a wrong one",
        tests=_GENERATOR,
    ),
    Mutation(
        name="native-generator-latency-from-sending",
        file="native/generator/tracker.c",
        old="            histogram_add(run->corrected, received_at - request.due);",
        new="            histogram_add(run->corrected, received_at - request.sent);",
        breaks="the corrected latency leaves out the time that a request waited for its turn",
        tests=f"{_FAULTS}::test_stall_appears_only_in_corrected_latency",
        slow=True,
    ),
)
