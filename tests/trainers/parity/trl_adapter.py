"""TRL: one call per batch, with dataset columns and the trainer's logging callbacks."""

from types import SimpleNamespace

from guerdon.policy import NO_RETRY, Policy
from guerdon.trainers.trl import reward_function

from .adapter import Seen

MASKS = True
MASKED = Policy(retry=NO_RETRY, on={"scorer": "mask", "infrastructure": "mask", "data": "mask"})


async def score(reward, rows, backend):
    return await _score(reward, rows, backend, Policy(retry=NO_RETRY))


async def score_on(reward, rows, backend):
    return await _score(reward, rows, backend, MASKED)


async def _score(reward, rows, backend, policy):
    function = reward_function(reward, backend=backend, policy=policy)
    columns = {}
    try:
        numbers = await function(
            prompts=[row.prompt for row in rows],
            completions=[row.response for row in rows],
            completion_ids=[list(row.response.encode()) for row in rows],
            ground_truth=[row.ground_truth for row in rows],
            data_source=[row.data_source for row in rows],
            judge=[row.judge for row in rows],
            fault=[row.fault for row in rows],
            trainer_state=SimpleNamespace(global_step=3),
            log_extra=columns.__setitem__,
            log_metric=lambda name, value: None,
        )
    except Exception as error:
        return [error] * len(rows)
    return seen_in(function.__name__, numbers, columns)


def seen_in(name, numbers, columns):
    """What TRL's rewards and its table of completions say about the rows."""
    outcomes = columns.pop(f"{name}/outcome")
    rows = []
    for i, (number, text) in enumerate(zip(numbers, outcomes, strict=True)):
        what, _, flag = text.partition(", ")
        kind, _, failure = what.partition(": ")
        components = {key.removeprefix(f"{name}/"): column[i] for key, column in columns.items()}
        rows.append(
            Seen(number, flag == "assigned", kind, failure, components if kind == "score" else None)
        )
    return rows
