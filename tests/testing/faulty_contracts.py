"""What test_suite_catches.py runs in a pytest of its own: the suite, on engines that can't pass it."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("bothends.testing.contract")

from bothends.testing.contract import EngineContract  # noqa: E402

# Each mistake, and the test that has to fail for it.
FAULTS = {
    "ClosesOnHalfClose": "test_answers_after_half_close[tcp]",
    "OneReadIsOneMessage": "test_two_messages_in_one_write[tcp]",
    "SharesOneConversation": "test_many_at_once[tcp]",
    "ExitsOnServiceError": "test_raises_at_what_it_hears[tcp-receive]",
    "QueuesWithoutBound": "test_who_never_reads_is_read_no_more[tcp]",
    "DoesNotLinger": "test_last_word_survives_a_peer_that_still_writes[tcp]",
    "IgnoresIdleLimit": "test_who_never_reads_is_idle",
    "IgnoresConnectionLimit": "test_limit_that_defers",
    "IgnoresDrain": "test_drain_with_nobody_there",
    "ReportsWrongCause": "test_service_stops_first[tcp]",
    "SpinsOnEmfile": "test_no_descriptor_left",
    "SpinsWhenIdle": "test_idle_server_costs_nothing",
    "DropsEmptyDatagrams": "test_empty_datagram[udp]",
    "PushesOnlyOnReceive": "test_reaches_the_silent[tcp]",
    "LeaksDescriptor": "test_drain_with_nobody_there",
    "LeaksProcess": "test_drain_with_nobody_there",
    "PrintsToStderr": "test_drain_with_nobody_there",
}


def contract_for(fault: str) -> type[EngineContract]:
    class Contract(EngineContract):
        engine = f"tests.testing.faulty_engines:{fault}"

    Contract.__name__ = Contract.__qualname__ = f"Test{fault}"
    return Contract


for _mistake in ("FaultyEngine", *FAULTS):
    globals()[f"Test{_mistake}"] = contract_for(_mistake)
