"""duplicate: some arrive twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from bothends.toxics.attributes import attribute
from bothends.toxics.base import PASS, Behaviour, Decision, Link, Medium, Piece, Toxic

_TWICE: Decision = (Piece(), Piece())


@dataclass(frozen=True, kw_only=True)
class Duplicate(Toxic):
    """A share of `probability` arrives twice, the copy right behind."""

    type = "duplicate"
    summary = "a share of the messages arrives twice"
    meaning: ClassVar[Mapping[Medium, str]] = {
        Medium.MESSAGES: "messages arrive twice, as they would from a faulty program",
        Medium.DATAGRAMS: "datagrams arrive twice",
        Medium.PACKETS: "packets arrive twice; TCP above discards the copy",
    }
    refusal = (
        "TCP discards a copied segment, so no stream ever holds bytes twice: bothends wire copies packets"
    )
    short = ("probability",)

    probability: float = attribute(0, "share", "what arrives twice of all")

    def behaviour(self, link: Link) -> Behaviour:
        return _Copier(self, link)


class _Copier(Behaviour):
    def __init__(self, toxic: Duplicate, link: Link) -> None:
        self._probability = toxic.probability
        self._random = link.random.random

    def decide(self, now: float, size: int) -> Decision:
        return _TWICE if self._random() < self._probability else PASS
