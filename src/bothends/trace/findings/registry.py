"""The table of rules. A rule is a function that finds mistakes in a trace, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from bothends.trace.findings import (
    abandoned_messages,
    accept_queue,
    answered_twice,
    binding,
    blocked_loops,
    buffered_reads,
    character_lengths,
    child_pipes,
    closed_in_sets,
    collected_clients,
    connect_progress,
    connecting,
    countdowns,
    crashes,
    cut_messages,
    datagrams,
    descriptor_passing,
    descriptor_use,
    discarded_datagrams,
    early_closes,
    empty_sends,
    end_markers,
    exits,
    framing,
    greetings,
    hanging_reads,
    hangs,
    http_bodies,
    http_contents,
    http_lengths,
    http_refusals,
    idle_clients,
    idle_http_clients,
    interruptions,
    java_objects,
    joined_messages,
    keep_alive,
    kept_open,
    kernel_reasons,
    late_replies,
    length_inclusion,
    length_widths,
    locks,
    long_lines,
    loops,
    path,
    pieces,
    pointers,
    processes,
    receive_timeouts,
    records,
    relays,
    resets,
    select_sets,
    self_requests,
    short_reads,
    split_characters,
    streams,
    thread_pools,
    tls,
    tls_handshakes,
    tls_pending,
    udp_groups,
    udp_losses,
    udp_replies,
    unix_datagrams,
    unsent_output,
    vanished,
    websocket_handshakes,
    wide_text,
    wrong_descriptors,
    wrong_sockets,
)
from bothends.trace.findings.base import Finding, TraceIndex
from bothends.trace.model import Call, KernelEvent, Packet, ProcessEvent, Trace

RULES: Final[dict[str, Callable[[TraceIndex], Iterator[Finding]]]] = {
    "swapped-port": connecting.swapped_port,
    "bind-error-ignored": binding.bind_error_ignored,
    "stale-path": binding.stale_path,
    "port-in-use": binding.port_in_use,
    "accept-without-listen": connecting.accept_without_listen,
    "bind-failed": binding.bind_failed,
    "shared-port-unread": accept_queue.shared_port_unread,
    "connect-not-awaited": connect_progress.connect_not_awaited,
    "so-error-ignored": connect_progress.so_error_ignored,
    "connect-error-ignored": connect_progress.connect_error_ignored,
    "connect-abandoned": connect_progress.connect_abandoned,
    "tcp-to-udp": connecting.tcp_to_udp,
    "udp-to-tcp": udp_replies.udp_to_tcp,
    "refused-too-early": connecting.refused_too_early,
    "refused-after-close": connecting.refused_after_close,
    "refused-elsewhere": connecting.refused_elsewhere,
    "refused-other-port": connecting.refused_other_port,
    "refused": connecting.refused,
    "ports-used-up": connect_progress.ports_used_up,
    "listener-closed-with-queue": accept_queue.listener_closed_with_queue,
    "interrupted-call": interruptions.interrupted_call,
    "backlog-overflow": accept_queue.backlog_overflow,
    "connect-unanswered": connect_progress.connect_unanswered,
    "datagram-too-large": datagrams.datagram_too_large,
    "datagram-not-sent": datagrams.datagram_not_sent,
    "truncated-datagram": datagrams.truncated_datagram,
    "udp-wrong-address": udp_replies.udp_wrong_address,
    "udp-other-port": udp_replies.udp_other_port,
    "udp-receiver-gone": udp_replies.udp_receiver_gone,
    "udp-too-early": udp_replies.udp_too_early,
    "udp-receiver-connected": udp_replies.udp_receiver_connected,
    "udp-reply-failed": udp_replies.udp_reply_failed,
    "udp-reply-elsewhere": udp_replies.udp_reply_elsewhere,
    "udp-reply-from-other-socket": udp_replies.udp_reply_from_other_socket,
    "udp-reply-from-other-address": udp_replies.udp_reply_from_other_address,
    "udp-reply-unread": udp_replies.udp_reply_unread,
    "udp-port-unreachable": udp_replies.udp_port_unreachable,
    "receive-buffer-full": udp_losses.receive_buffer_full,
    "waitall-returned-early": short_reads.waitall_returned_early,
    "eagain-as-error": short_reads.eagain_as_error,
    "receive-timeout-tiny": receive_timeouts.receive_timeout_tiny,
    "late-reply": late_replies.late_reply,
    "answered-twice": answered_twice.answered_twice,
    "multicast-not-joined": udp_groups.multicast_not_joined,
    "broadcast-missed": udp_groups.broadcast_missed,
    "unix-receiver-gone": unix_datagrams.unix_receiver_gone,
    "unix-client-unnamed": unix_datagrams.unix_client_unnamed,
    "unix-queue-full": unix_datagrams.unix_queue_full,
    "descriptors-discarded": descriptor_passing.descriptors_discarded,
    "closed-in-use": descriptor_use.closed_in_use,
    "closed-twice": descriptor_use.closed_twice,
    "used-after-close": descriptor_use.used_after_close,
    "closed-in-set": closed_in_sets.closed_in_set,
    "closed-object-used": wrong_descriptors.closed_object_used,
    "not-a-socket": wrong_descriptors.not_a_socket,
    "transfer-on-listener": wrong_sockets.transfer_on_listener,
    "connected-again": wrong_sockets.connected_again,
    "sigpipe": processes.sigpipe,
    "two-readers": descriptor_use.two_readers,
    "two-writers": descriptor_use.two_writers,
    "peer-stopped": vanished.peer_stopped,
    "peer-vanished": vanished.peer_vanished,
    "tls-to-plain": tls.tls_to_plain,
    "plain-to-tls": tls.plain_to_tls,
    "tls-handshake-failed": tls_handshakes.tls_handshake_failed,
    "tls-cut-off": tls.tls_cut_off,
    "tls-data-pending": tls_pending.tls_data_pending,
    "linger-reset": resets.linger_reset,
    "record-size-differs": records.record_size_differs,
    "length-counts-characters": character_lengths.length_counts_characters,
    "length-includes-prefix": length_inclusion.length_includes_prefix,
    "length-width": length_widths.length_width,
    "length-byte-order": framing.length_byte_order,
    "message-abandoned": abandoned_messages.message_abandoned,
    "message-cut-short": cut_messages.message_cut_short,
    "text-in-utf-16": wide_text.text_in_utf_16,
    "object-stream-expected": java_objects.object_stream_expected,
    "text-as-length": framing.text_as_length,
    "json-joined": joined_messages.json_joined,
    "json-split": pieces.json_split,
    "stream-header-repeated": java_objects.stream_header_repeated,
    "object-not-serializable": java_objects.object_not_serializable,
    "object-sent-once": java_objects.object_sent_once,
    "whole-buffer": framing.whole_buffer,
    "descriptors-exhausted": descriptor_use.descriptors_exhausted,
    "timeout-used-up": countdowns.timeout_used_up,
    "always-writable": loops.always_writable,
    "hangup-ignored": loops.hangup_ignored,
    "readable-ignored": loops.readable_ignored,
    "zero-timeout": loops.zero_timeout,
    "busy-loop": loops.busy_loop,
    "peek-not-read": loops.peek_not_read,
    "zero-size-read": loops.zero_size_read,
    "both-send": hangs.both_send,
    "edge-not-drained": hangs.edge_not_drained,
    "loop-blocked": blocked_loops.loop_blocked,
    "blocked-by-slow-reader": blocked_loops.blocked_by_slow_reader,
    "select-set-reused": select_sets.select_set_reused,
    "waits-for-itself": self_requests.waits_for_itself,
    "not-accepted": hangs.not_accepted,
    "waits-for-more-clients": collected_clients.waits_for_more_clients,
    "keyboard": hangs.keyboard,
    "child-pipe": child_pipes.child_pipe,
    "copy-keeps-open": kept_open.copy_keeps_open,
    "buffered-data-skipped": buffered_reads.buffered_data_skipped,
    "pool-exhausted": thread_pools.pool_exhausted,
    "lock-held": locks.lock_held,
    "relay-one-way": relays.relay_one_way,
    "half-close-not-relayed": relays.half_close_not_relayed,
    "loop-not-woken": relays.loop_not_woken,
    "send-not-resumed": unsent_output.send_not_resumed,
    "marker-joined": end_markers.marker_joined,
    "empty-send": empty_sends.empty_send,
    "http-continue-awaited": http_bodies.http_continue_awaited,
    "http-body-awaited": http_bodies.http_body_awaited,
    "http-incomplete": hanging_reads.http_incomplete,
    "http-read-to-eof": hanging_reads.http_read_to_eof,
    "http-no-length": kept_open.http_no_length,
    "http-body-unread": http_lengths.http_body_unread,
    "websocket-accept": websocket_handshakes.websocket_accept,
    "http-host-missing": http_refusals.http_host_missing,
    "http-not-upgraded": http_refusals.http_not_upgraded,
    "http-not-answered-in-http": http_contents.http_not_answered_in_http,
    "http-encoding-wrong": http_contents.http_encoding_wrong,
    "http-header-too-large": http_contents.http_header_too_large,
    "http-chunks-not-read": http_contents.http_chunks_not_read,
    "http-length-wrong": http_lengths.http_length_wrong,
    "http-body-without-length": http_lengths.http_body_without_length,
    "character-split": split_characters.character_split,
    "keep-alive-race": keep_alive.keep_alive_race,
    "greeting-not-read": greetings.greeting_not_read,
    "pointer-sent": pointers.pointer_sent,
    "exited-with-unsent-data": unsent_output.exited_with_unsent_data,
    "exited-on-reset": exits.exited_on_reset,
    "exited-on-timeout": exits.exited_on_timeout,
    "exited-mid-conversation": exits.exited_mid_conversation,
    "exited-with-error": crashes.exited_with_error,
    "closed-before-answer": early_closes.closed_before_answer,
    "closed-without-answer": exits.closed_without_answer,
    "timeout-too-short": exits.timeout_too_short,
    "line-over-limit": long_lines.line_over_limit,
    "one-recv-per-message": streams.one_recv_per_message,
    "two-sends-one-read": streams.two_sends_one_read,
    "messages-unanswered": joined_messages.messages_unanswered,
    "short-send": streams.short_send,
    "read-too-long": hanging_reads.read_too_long,
    "full-read-not-last": hanging_reads.full_read_not_last,
    "no-newline": hanging_reads.no_newline,
    "request-ignored": hanging_reads.request_ignored,
    "unflushed": hanging_reads.unflushed,
    "no-half-close": hanging_reads.no_half_close,
    "not-read": kept_open.not_read,
    "not-closed": kept_open.not_closed,
    "closed-with-unread-data": streams.closed_with_unread_data,
    "eof-ignored": streams.eof_ignored,
    "answer-before-request-read": streams.answer_before_request_read,
    "write-after-close": streams.write_after_close,
    "nagle-delayed-ack": streams.nagle_delayed_ack,
    "http-response-read-to-eof": idle_http_clients.http_response_read_to_eof,
    "http-body-not-consumed": idle_http_clients.http_body_not_consumed,
    "idle-client": idle_clients.idle_client,
    "http-unanswered": hanging_reads.http_unanswered,
    "udp-reply-discarded": discarded_datagrams.udp_reply_discarded,
    "closed-before-sent": discarded_datagrams.closed_before_sent,
    "unanswered-datagram": udp_replies.unanswered_datagram,
    "children-not-waited-for": processes.children_never_waited_for,
    "never-closed": processes.descriptor_never_closed,
    "retransmission": path.retransmission,
    "spurious-retransmission": path.spurious_retransmission,
    "zero-window": path.zero_window,
    "delayed-ack": path.delayed_ack,
    "mtu-black-hole": path.mtu_black_hole,
}


_REFUSED: Final = frozenset(
    {
        "refused-too-early",
        "refused-after-close",
        "refused-elsewhere",
        "refused-other-port",
        "refused",
        "tcp-to-udp",
    }
)
# A connection on which nothing moves: what a program does about it in the end, and what TCP does meanwhile.
_OF_A_HANG: Final = frozenset(
    {
        "not-read",
        "not-closed",
        "closed-with-unread-data",
        "write-after-close",
        "eof-ignored",
        "idle-client",
        "never-closed",
        "zero-window",
    }
)
_HANGS: Final = (
    "both-send",
    "not-accepted",
    "keyboard",
    "copy-keeps-open",
    "http-incomplete",
    "http-read-to-eof",
    "http-no-length",
    "timeout-too-short",
    "read-too-long",
    "full-read-not-last",
    "no-newline",
    "request-ignored",
    "unflushed",
    "no-half-close",
    "short-send",
    "two-sends-one-read",
    "messages-unanswered",
)
# Bytes that are no TLS, or TLS bytes that are taken for text.
_OF_TLS: Final = _OF_A_HANG | {
    *_HANGS,
    "one-recv-per-message",
    "exited-mid-conversation",
    "length-counts-characters",
    "length-byte-order",
    "text-as-length",
}
_LOOPS: Final = (
    "always-writable", "hangup-ignored", "readable-ignored", "zero-timeout", "busy-loop", "peek-not-read",
    "zero-size-read",
)  # fmt: skip
# Findings of these rules follow from a finding of the rule, if they concern the same connection or process.
EXPLAINS: Final[dict[str, frozenset[str]]] = {
    **dict.fromkeys(_HANGS, _OF_A_HANG),
    "unflushed": _OF_A_HANG | {"timeout-too-short"},
    "short-send": _OF_A_HANG | {"read-too-long", "no-half-close", "no-newline", "unflushed"},
    "select-set-reused": _OF_A_HANG | {*_HANGS, "busy-loop", "zero-timeout", "listener-closed-with-queue"},
    "not-accepted": _OF_A_HANG | {"listener-closed-with-queue"},
    "waits-for-itself": _OF_A_HANG
    | {
        "not-accepted",
        "request-ignored",
        "http-unanswered",
        "timeout-too-short",
        "listener-closed-with-queue",
    },
    "send-not-resumed": _OF_A_HANG | {*_HANGS, "http-length-wrong", "one-recv-per-message"},
    **dict.fromkeys(
        ("http-continue-awaited", "http-body-awaited"), _OF_A_HANG | {*_HANGS, "http-unanswered"}
    ),
    "blocked-by-slow-reader": _OF_A_HANG
    | {"http-unanswered", "request-ignored", "not-accepted", "listener-closed-with-queue"},
    "loop-blocked": _OF_A_HANG | {"not-accepted", "listener-closed-with-queue", "timeout-too-short"},
    **dict.fromkeys(
        ("exited-on-reset", "exited-on-timeout"), _OF_A_HANG | _REFUSED | {"listener-closed-with-queue"}
    ),
    "exited-mid-conversation": _OF_A_HANG | _REFUSED | {"listener-closed-with-queue"},
    "edge-not-drained": _OF_A_HANG | {"one-recv-per-message"},
    "buffered-data-skipped": _OF_A_HANG | {*_HANGS, "one-recv-per-message"},
    **dict.fromkeys(
        ("pool-exhausted", "lock-held", "relay-one-way", "half-close-not-relayed", "loop-not-woken"),
        _OF_A_HANG | {*_HANGS, "http-unanswered"},
    ),
    **dict.fromkeys(("empty-send", "marker-joined"), _OF_A_HANG | {*_HANGS, "one-recv-per-message"}),
    "child-pipe": _OF_A_HANG | {*_HANGS, "loop-blocked", "http-unanswered"},
    "http-response-read-to-eof": _OF_A_HANG,
    "not-read": (_OF_A_HANG - {"not-read"}) | {"one-recv-per-message", "http-unanswered"},
    "not-closed": _OF_A_HANG - {"not-closed"},
    "transfer-on-listener": _OF_A_HANG
    | {
        "sigpipe",
        "exited-mid-conversation",
        "closed-with-unread-data",
        "write-after-close",
        "closed-without-answer",
    },
    "waits-for-more-clients": _OF_A_HANG,
    "websocket-accept": _OF_A_HANG
    | {*_HANGS, "exited-on-reset", "exited-mid-conversation", "keep-alive-race"},
    "pointer-sent": _OF_A_HANG | {"exited-mid-conversation", "record-size-differs"},
    "closed-in-set": _OF_A_HANG
    | {
        *_HANGS,
        *_LOOPS,
        "loop-blocked",
        "exited-mid-conversation",
        "exited-on-reset",
        "closed-without-answer",
    }
    | {"listener-closed-with-queue", "sigpipe", *_REFUSED},
    **dict.fromkeys(
        ("closed-object-used", "not-a-socket"),
        _OF_A_HANG
        | _REFUSED
        | {*_HANGS, "exited-mid-conversation", "exited-on-reset", "closed-without-answer", "sigpipe"}
        | {"listener-closed-with-queue"},
    ),
    "connected-again": frozenset({"closed-without-answer", "exited-mid-conversation", "write-after-close"}),
    "swapped-port": frozenset(
        {"refused-other-port", "refused", "unanswered-datagram", "udp-port-unreachable"}
    ),
    "bind-error-ignored": _REFUSED
    | {"port-in-use", "stale-path", "bind-failed", "udp-wrong-address", "udp-other-port"},
    **dict.fromkeys(
        ("accept-without-listen", "bind-failed", "port-in-use", "stale-path", "interrupted-call"),
        _REFUSED | {"not-accepted"},
    ),
    "connect-not-awaited": _REFUSED | {"so-error-ignored", "connect-unanswered", "write-after-close"},
    "so-error-ignored": _REFUSED | {"connect-unanswered", "write-after-close"},
    "connect-error-ignored": _REFUSED | {"connect-unanswered", "write-after-close"},
    "connect-abandoned": _REFUSED | {"connect-unanswered", "never-closed", "idle-client"},
    "shared-port-unread": frozenset({"unanswered-datagram", "receive-buffer-full", "idle-client"}),
    "http-body-without-length": _OF_A_HANG | {*_HANGS},
    "http-body-unread": _OF_A_HANG | {"one-recv-per-message", "http-no-length"},
    "backlog-overflow": frozenset({"listener-closed-with-queue", "write-after-close"}),
    "listener-closed-with-queue": frozenset({"write-after-close"}),
    "datagram-too-large": frozenset({"unanswered-datagram"}),
    "two-readers": _OF_A_HANG
    | {"one-recv-per-message", "read-too-long", "no-newline", "no-half-close", "unflushed"},
    "closed-in-use": frozenset({"two-readers", "two-writers", "never-closed", "write-after-close"}),
    **dict.fromkeys(
        ("closed-twice", "used-after-close"),
        frozenset({"exited-mid-conversation", "never-closed", "write-after-close"}),
    ),
    "sigpipe": _OF_A_HANG | _REFUSED | {"exited-mid-conversation", "listener-closed-with-queue"},
    **dict.fromkeys(_LOOPS, _OF_A_HANG | {"not-accepted", "loop-blocked", "one-recv-per-message"}),
    "zero-size-read": _OF_A_HANG | {"one-recv-per-message", "closed-without-answer"},
    "descriptors-exhausted": frozenset({"never-closed", "backlog-overflow", "listener-closed-with-queue"}),
    **dict.fromkeys(
        ("length-counts-characters", "length-byte-order", "text-as-length", "length-includes-prefix"),
        frozenset(
            {
                *_HANGS,
                "one-recv-per-message",
                "closed-with-unread-data",
                "write-after-close",
                "two-sends-one-read",
                "exited-mid-conversation",
            }
        ),
    ),
    "length-width": _OF_A_HANG
    | {*_HANGS, "length-byte-order", "text-as-length", "one-recv-per-message", "exited-mid-conversation"}
    | {"message-cut-short", "message-abandoned", "record-size-differs", "write-after-close"},
    "record-size-differs": _OF_A_HANG
    | {*_HANGS, "one-recv-per-message", "length-byte-order", "exited-mid-conversation"},
    "message-abandoned": _OF_A_HANG
    | {"message-cut-short", "text-as-length", "one-recv-per-message", "timeout-too-short"},
    "message-cut-short": _OF_A_HANG
    | {*_HANGS, "text-as-length", "one-recv-per-message", "exited-mid-conversation", "length-byte-order"},
    "whole-buffer": _OF_A_HANG | {*_HANGS},
    "greeting-not-read": frozenset({"closed-with-unread-data", "write-after-close"}),
    "line-over-limit": frozenset({"exited-mid-conversation", "closed-with-unread-data"}),
    "text-in-utf-16": _OF_A_HANG | {*_HANGS, "text-as-length", "exited-mid-conversation"},
    "object-stream-expected": _OF_A_HANG
    | {
        *_HANGS,
        "text-as-length",
        "exited-mid-conversation",
        "one-recv-per-message",
        "closed-without-answer",
    },
    "stream-header-repeated": _OF_A_HANG | {"exited-mid-conversation", "one-recv-per-message"},
    **dict.fromkeys(
        ("json-joined", "json-split"), _OF_A_HANG | {"exited-mid-conversation", "one-recv-per-message"}
    ),
    "object-not-serializable": _OF_A_HANG
    | {*_HANGS, "exited-mid-conversation", "one-recv-per-message", "closed-without-answer"},
    "http-host-missing": _OF_A_HANG | {*_HANGS, "http-unanswered", "exited-mid-conversation"},
    "http-header-too-large": frozenset({"closed-with-unread-data", "write-after-close"}),
    "http-chunks-not-read": frozenset(
        {
            "closed-without-answer",
            "closed-with-unread-data",
            "one-recv-per-message",
            "exited-mid-conversation",
        }
    ),
    "character-split": frozenset({"exited-mid-conversation", "one-recv-per-message"}),
    "exited-with-unsent-data": _OF_A_HANG | {"short-send", "exited-mid-conversation"},
    "answered-twice": frozenset({"timeout-too-short", "closed-with-unread-data", "write-after-close"}),
    "timeout-used-up": frozenset({"zero-timeout", "busy-loop", "closed-without-answer"}),
    "descriptors-discarded": frozenset({"never-closed", "closed-without-answer"}),
    "tls-data-pending": _OF_TLS,
    "receive-timeout-tiny": frozenset(
        {
            "timeout-too-short",
            "unanswered-datagram",
            "write-after-close",
            "closed-with-unread-data",
            "sigpipe",
        }
    ),
    "eagain-as-error": frozenset({"write-after-close", "sigpipe", "closed-with-unread-data"}),
    "waitall-returned-early": frozenset({"exited-mid-conversation", "closed-with-unread-data"}),
    "eof-ignored": frozenset({"never-closed"}),
    "closed-with-unread-data": frozenset({"write-after-close"}),
    "answer-before-request-read": frozenset({"closed-with-unread-data", "write-after-close"}),
    **dict.fromkeys(
        ("peer-stopped", "peer-vanished"), _OF_A_HANG | {*_HANGS, "retransmission", "connect-unanswered"}
    ),
    **dict.fromkeys(("tls-to-plain", "plain-to-tls", "tls-cut-off"), _OF_TLS),
    "tls-handshake-failed": _OF_TLS | {"tls-cut-off", "closed-without-answer", "exited-on-reset"},
    **dict.fromkeys(
        ("linger-reset", "keep-alive-race", "http-length-wrong"),
        _OF_A_HANG | {"http-no-length"} | {"one-recv-per-message"},
    ),
    "datagram-not-sent": frozenset({"unanswered-datagram"}),
    "udp-reply-failed": frozenset({"datagram-not-sent"}),
    "udp-reply-discarded": frozenset({"unanswered-datagram"}),
    "unix-queue-full": frozenset({"busy-loop", "loop-blocked"}),
    "unix-client-unnamed": frozenset({"exited-mid-conversation"}),
    "udp-wrong-address": frozenset({"unanswered-datagram", "udp-port-unreachable"}),
    "receive-buffer-full": frozenset({"unanswered-datagram"}),
    "closed-before-answer": frozenset({"write-after-close", "sigpipe", "exited-on-reset"}),
}
# What explains an exit in the middle of a conversation explains one before or after it, too.
EXPLAINS.update(
    (rule, explained | {"exited-with-error"})
    for rule, explained in list(EXPLAINS.items())
    if "exited-mid-conversation" in explained
)
EXPLAINS["exited-with-error"] = EXPLAINS["exited-mid-conversation"]


def run_rules(trace: Trace, on_error: Callable[[str, Exception], object] | None = None) -> list[Finding]:
    """Run all rules on a trace. Returns their findings in the order of the table, grouped by `EXPLAINS`.

    `on_error`: called with the name of a rule that raises an exception, and the exception, so that the others
    still run; None: the exception is raised.
    """
    trace_index = TraceIndex(trace)
    found: list[Finding] = []
    for name, rule in RULES.items():
        try:
            found += rule(trace_index)
        except Exception as error:
            if on_error is None:
                raise
            on_error(name, error)
    return group([kernel_reasons.confirm(each, trace_index) for each in found], trace_index)


def group(findings: Sequence[Finding], trace_index: TraceIndex) -> list[Finding]:
    """Put findings that follow from others under them, each under the first one that explains it."""
    extents = [_extent(each, trace_index) for each in findings]
    parents: dict[int, int] = {}
    for at, finding in enumerate(findings):
        for other, root in enumerate(findings):
            explains = finding.rule in EXPLAINS.get(root.rule, ()) and other != at
            if at < other and root.rule in EXPLAINS.get(finding.rule, ()):
                continue  # each explains the other: the earlier one in the table does
            if explains and extents[at] & extents[other] and not _is_ancestor(at, other, parents):
                parents[at] = other
                break
    children: dict[int, list[int]] = {}
    for at, parent in parents.items():
        children.setdefault(parent, []).append(at)

    def with_consequences(at: int) -> Finding:
        below = tuple(map(with_consequences, children.get(at, ())))
        return replace(findings[at], consequences=(*findings[at].consequences, *below))

    return [with_consequences(at) for at in range(len(findings)) if at not in parents]


def _is_ancestor(at: int, of: int, parents: dict[int, int]) -> bool:
    while of in parents:
        of = parents[of]
        if of == at:
            return True
    return False


def _extent(finding: Finding, trace_index: TraceIndex) -> set[tuple[str, int]]:
    """Return what a finding concerns: its connections, at both ends, and its processes."""
    sockets = set(finding.sockets)
    processes = set() if finding.process is None else {finding.process}
    for number in finding.evidence:
        match trace_index.trace.event(number):
            case Call() as call:
                processes.add(call.process)
                sockets |= set() if call.socket is None else {call.socket}
            case Packet() as packet:
                sockets |= {each for each in (packet.sender, packet.receiver) if each is not None}
            case ProcessEvent() as event:
                processes.add(event.process)
            case KernelEvent() as dropped:
                sockets |= set() if dropped.socket is None else {dropped.socket}
    sockets |= {peer for each in sockets if (peer := trace_index.peer_of(each)) is not None}
    return {("socket", each) for each in sockets} | {("process", each) for each in processes}
