"""The check-up: what was looked at, how it is, and what the user can do about it.

Decides: the form of a finding, which findings make a check-up fail, and their order.
Must not: look at anything. What was seen comes in as the observations of `checkup_valet.py`,
`checkup_providers.py` and `checkup_machine.py`, whose rules turn it into findings.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec


class FindingStatus(StrEnum):
    """How it is. Only `bad` makes the check-up fail."""

    OK = "ok"
    INFO = "info"  # worth knowing, nothing to do
    WARN = "warn"  # works, but not as well as it could
    BAD = "bad"
    UNKNOWN = "unknown"  # it could not be looked at


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. `says` and `remedy` are one plain sentence each; `remedy` may be ""."""

    id: str
    title: str
    status: FindingStatus
    says: str
    remedy: str = ""


class Topic(msgspec.Struct, frozen=True):
    """What a finding is about: makes findings of every status."""

    id: str
    title: str

    def ok(self, says: str, remedy: str = "") -> Finding:
        """All right."""
        return self.finding(FindingStatus.OK, says, remedy)

    def info(self, says: str, remedy: str = "") -> Finding:
        """Worth knowing."""
        return self.finding(FindingStatus.INFO, says, remedy)

    def warn(self, says: str, remedy: str) -> Finding:
        """Not as good as it could be."""
        return self.finding(FindingStatus.WARN, says, remedy)

    def bad(self, says: str, remedy: str) -> Finding:
        """Wrong."""
        return self.finding(FindingStatus.BAD, says, remedy)

    def unknown(self, says: str, remedy: str = "") -> Finding:
        """It could not be seen."""
        return self.finding(FindingStatus.UNKNOWN, says, remedy)

    def finding(self, status: FindingStatus, says: str, remedy: str) -> Finding:
        """A finding of that status, each text on one line."""
        return Finding(
            id=self.id,
            title=self.title,
            status=status,
            says=" ".join(says.split()),
            remedy=" ".join(remedy.split()),
        )


_URGENCY = (
    FindingStatus.BAD,
    FindingStatus.WARN,
    FindingStatus.UNKNOWN,
    FindingStatus.INFO,
    FindingStatus.OK,
)


def is_healthy(findings: Iterable[Finding]) -> bool:
    """Whether nothing is bad."""
    return all(finding.status is not FindingStatus.BAD for finding in findings)


def most_urgent_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """What is bad before what is fine; else in the order of looking."""
    return tuple(sorted(findings, key=lambda finding: _URGENCY.index(finding.status)))


def count_of(findings: Iterable[Finding], status: FindingStatus) -> int:
    """How many findings have that status."""
    return sum(finding.status is status for finding in findings)
