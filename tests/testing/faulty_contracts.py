"""What test_suite_catches.py runs in a pytest of its own: the suite, on engines that can't pass it."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("bothends.testing.contract")

from bothends.testing.contract import EngineContract  # noqa: E402

# Each mistake, and the test that has to fail for it.
CAUGHT = {
    "ClosesOnHalfClose": "test_answers_after_half_close[tcp]",
    "OneReadIsOneMessage": "test_two_messages_in_one_write[tcp]",
    "SharesOneConversation": "test_many_at_once[tcp]",
    "DiesOfMistakes": "test_raises_at_what_it_hears[tcp-receive]",
    "QueuesWithoutBound": "test_who_never_reads_is_read_no_more[tcp]",
    "DoesNotLinger": "test_last_word_survives_a_peer_that_still_writes[tcp]",
    "KnowsNoIdleLimit": "test_who_never_reads_is_idle",
    "KnowsNoConnectionLimit": "test_limit_that_defers",
    "IgnoresDrain": "test_drain_with_nobody_there",
    "LiesAboutTheCause": "test_service_stops_first[tcp]",
    "SpinsOnEmfile": "test_no_descriptor_left",
    "SpinsWhenIdle": "test_idle_server_costs_nothing",
    "DropsEmptyDatagrams": "test_empty_datagram[udp]",
    "PostsWhenSpokenTo": "test_reaches_the_silent[tcp]",
    "LeavesADescriptor": "test_drain_with_nobody_there",
    "LeavesAProcess": "test_drain_with_nobody_there",
    "Chatters": "test_drain_with_nobody_there",
}


def contract_for(mistake: str) -> type[EngineContract]:
    class Contract(EngineContract):
        engine = f"tests.testing.faulty_engines:{mistake}"

    Contract.__name__ = Contract.__qualname__ = f"Test{mistake}"
    return Contract


for _mistake in ("Bent", *CAUGHT):
    globals()[f"Test{_mistake}"] = contract_for(_mistake)
