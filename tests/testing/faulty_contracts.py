"""The contract suite on engines with bugs, for a pytest process of test_suite_catches.py."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("bothends.testing.contract")

from bothends.testing.contract import EngineContract  # noqa: E402

# Faulty engine -> the test that must fail for it.
FAULTS = {
    "ClosesOnHalfClose": "test_reply_after_half_close[tcp]",
    "OneReadIsOneMessage": "test_two_messages_in_one_write[tcp]",
    "SharesOneConversation": "test_fifty_concurrent_connections[tcp]",
    "ExitsOnServiceError": "test_raise_on_received_data_ends_one_conversation[tcp-receive]",
    "QueuesWithoutBound": "test_peer_that_never_reads_pauses_reading[tcp]",
    "DoesNotLinger": "test_final_reply_is_not_lost_to_reset[tcp]",
    "IgnoresIdleLimit": "test_peer_that_never_reads_is_idle",
    "IgnoresConnectionLimit": "test_connection_limit_defer_leaves_in_queue",
    "IgnoresDrain": "test_drain_without_connections_exits_at_once",
    "NeverResets": "test_cut_off_with_unsent_answer_is_reset[finished-life]",
    "AlwaysResets": "test_finished_answer_ends_with_eof[late]",
    "ReportsWrongCause": "test_service_done_closes_connection[tcp]",
    "SpinsOnEmfile": "test_emfile_pauses_accepting_and_recovers",
    "SpinsWhenIdle": "test_idle_server_uses_no_cpu",
    "DropsEmptyDatagrams": "test_empty_datagram[udp]",
    "PushesOnlyOnReceive": "test_push_reaches_idle_peer[tcp]",
    "LeaksDescriptor": "test_drain_without_connections_exits_at_once",
    "LeaksProcess": "test_drain_without_connections_exits_at_once",
    "PrintsToStderr": "test_drain_without_connections_exits_at_once",
}


def contract_for(fault: str) -> type[EngineContract]:
    class Contract(EngineContract):
        engine = f"tests.testing.faulty_engines:{fault}"

    Contract.__name__ = Contract.__qualname__ = f"Test{fault}"
    return Contract


for _fault in ("FaultyEngine", *FAULTS):
    globals()[f"Test{_fault}"] = contract_for(_fault)
