"""The order in which the programs of a folder are candidates for a contract, by role and transport."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bothends.check.batch.source_evidence import SourceEvidence

_OTHER: dict[str, str] = {"server": "client", "client": "server", "tcp": "udp", "udp": "tcp"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A program of a submission: its file, the file's path inside the folder, and what its text says.

    `is_module`: another source file imports it.
    """

    path: Path
    name: Path
    evidence: SourceEvidence
    is_module: bool = False

    def rank(self, role: str, transport: str) -> tuple[int | str, ...]:
        """Return a key to sort the candidates for a contract, the best first.

        Calls decide; names decide between programs whose calls say the same.
        """
        return (
            self.is_module,
            self.evidence.role_rank(role) == 2,
            self._names_other(role),
            self.evidence.transport_rank(transport),
            self.evidence.role_rank(role),
            role not in self.path.name.lower(),
            self._names_other(transport.partition("+")[0]),
            len(self.name.parts),
            str(self.name),
        )

    def has_role(self, role: str) -> bool:
        """Whether it seems to be a program of this role."""
        return (
            not self.is_module
            and self.evidence.role_rank(role) < 2
            and not self._names_other(role)
            and (self.evidence.role_rank(role) == 0 or role in self.path.name.lower())
        )

    def _names_other(self, wanted: str) -> bool:
        name = str(self.name).lower()
        other = _OTHER.get(wanted)
        return other is not None and other in name and wanted not in name
