"""The self-check of a reward: its own fixtures, and probes that every reward must survive.

`check` gives a report per reward. `examination` runs the cases, `report` holds what they showed, and
`probe` is what is done to samples.
"""

from guerdon.checking.examination import changed_options, check, describe, leaves, visible_gpus
from guerdon.checking.report import Case, RewardReport, Verdict

__all__ = [
    "Case",
    "RewardReport",
    "Verdict",
    "changed_options",
    "check",
    "describe",
    "leaves",
    "visible_gpus",
]
