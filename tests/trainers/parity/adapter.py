"""What the parity tests see of one row, whichever trainer it went to.

An adapter module holds:

    MASKS: bool      whether the trainer can be told that a row has no score
    PROMPTS: bool    whether the trainer hands over a conversation, prompt and text; True where it
                     is not said
    async def score(reward, rows, backend) -> list[Seen | Exception]
        every row as the trainer would see it under the adapter's own defaults (without waiting for
        retries); where the trainer's call raises, the exception stands for each row of that call
    async def score_on(reward, rows, backend) -> list[Seen | Exception]
        the same where the user wants the run to go on: rows without a score are masked where the
        trainer can be told so, else get the neutral number `NEUTRAL`
"""

from typing import NamedTuple

NEUTRAL = 0.125


class Seen(NamedTuple):
    """What became of one row.

    `kind` is "score", "abstention" or "failure", `text` names the failure, `components` are None
    where the row is no score.
    """

    number: float | None
    assigned: bool
    kind: str
    text: str = ""
    components: dict[str, float | None] | None = None
