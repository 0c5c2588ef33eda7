"""The score of a composition whose value is that of one of its children; the others did not run."""

from __future__ import annotations

from guerdon.compose.child import Member
from guerdon.compose.row import Owner, assemble, plain, stand_in, verdict
from guerdon.outcome import Abstention, Outcome, Score
from guerdon.sample import Sample


def idle(member: Member, reason: str) -> Abstention:
    """What stands in a row for a child that did not run."""
    return Abstention(
        reason=f"not run: {reason}",
        reward=member.reward.name,
        fingerprint=member.reward.fingerprint,
    )


class Pick:
    """Makes the outcomes of a composition from those of the one child that was chosen.

    Args:
        owner: the composition.
        place: of the chosen child.
        reason: why the others did not run.
    """

    def __init__(self, owner: Owner, place: int, reason: str) -> None:
        self._owner = owner
        self._place = place
        self._member = owner.members[place]
        self._idle = [idle(member, reason) for member in owner.members]
        # Shared by all samples: nothing changes them.
        self._components = dict.fromkeys(member.name for member in owner.members)
        self._absent = {
            member.name: missed
            for i, (member, missed) in enumerate(zip(owner.members, self._idle, strict=True))
            if i != place
        }

    def outcome(self, outcome: Outcome, sample: Sample) -> Outcome:
        """The outcome of the composition for one sample."""
        owner, place = self._owner, self._place
        low, high = owner.value_range
        if plain(outcome) and low <= outcome.value <= high:
            return Score(
                value=outcome.value,
                components={**self._components, self._member.name: outcome.value},
                absent=self._absent,
                reward=owner.name,
                fingerprint=owner.fingerprint,
                sample=sample.sample_id,
                elapsed=outcome.elapsed,
            )
        number = stand_in(self._member, outcome)
        if number is None:
            alone = [outcome if i == place else None for i in range(len(owner.members))]
            return verdict(owner, alone, sample)
        row = [outcome if i == place else missed for i, missed in enumerate(self._idle)]
        return assemble(owner, row, sample, number, chosen=place)
