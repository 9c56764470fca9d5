"""The table of attacks, in the order in which they run. Adding one: a file, and one line here."""

from __future__ import annotations

from typing import Final

from bothends.attack.attacks import (
    datagram_sizes,
    datagram_vanishing,
    endless_message,
    full_disk,
    garbage,
    half_closes,
    idle_crowd,
    one_byte_writers,
    out_of_band,
    proxy_headers,
    readers_not_reading,
    reset_storm,
    slow_senders,
    starved_descriptors,
    tls_handshakes,
)
from bothends.attack.attacks.base import Attack

ATTACKS: Final[dict[str, Attack]] = {
    each.id: each
    for each in (
        slow_senders.ATTACK,
        one_byte_writers.ATTACK,
        readers_not_reading.ATTACK,
        idle_crowd.ATTACK,
        reset_storm.ATTACK,
        half_closes.ATTACK,
        out_of_band.ATTACK,
        endless_message.ATTACK,
        garbage.ATTACK,
        tls_handshakes.ATTACK,
        proxy_headers.ATTACK,
        starved_descriptors.ATTACK,
        full_disk.ATTACK,
        datagram_sizes.ATTACK,
        datagram_vanishing.ATTACK,
    )
}
