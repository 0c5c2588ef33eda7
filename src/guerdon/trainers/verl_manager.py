"""verl: reward managers, registered as `guerdon` when verl loads its plugins.

    reward.reward_manager.name=guerdon
    +reward.reward_kwargs.reward=gsm8k

The entry point `verl.plugins` of this package registers them, in the driver and in every Ray
worker (see `verl_plugin`). verl asks for no base class, so none is imported. Contract: verl 0.9.1,
`verl/experimental/reward_loop/`, `verl/workers/reward_manager/abstract.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

from guerdon.errors import ConfigError
from guerdon.reward import run_coroutine
from guerdon.service import Entry
from guerdon.trainers.micro_batch import Settled
from guerdon.trainers.verl import Scorer, scorer_for
from guerdon.trainers.verl_batch import (
    Row,
    assemble,
    decoded,
    number_for,
    read_row,
    response_tokens,
)

OWN_MODULE = "pkg://guerdon.trainers.verl"
INLINE_TOKENS = 2048
"""Responses up to this length are decoded at once: a thread would cost more than it frees."""


class GuerdonRewardManager:
    """The reward loop's manager: samples of concurrent calls are scored in micro-batches.

    Every row has the same extra-info keys (see `guerdon.trainers.verl.compute_score`); a sample
    without a score is tried again, then gets the number that the user named, else the call raises.

    Args:
        config: verl's; its `reward.reward_kwargs` hold `guerdon.trainers.verl.Settings`.
        tokenizer: of the policy.
        compute_score: not used: the reward is named in the settings.
        reward_router_address: of a reward model that verl runs; rewards get it by name.
        reward_model_tokenizer: of that model.

    Raises:
        ConfigError: settings that cannot work, or a custom reward function beside them.
    """

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        compute_score: Any = None,
        reward_router_address: str | None = None,
        reward_model_tokenizer: Any = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._settings = settings_of(config)
        if reward_router_address is not None:
            self._settings["reward_router_address"] = reward_router_address
            self._settings["reward_model_tokenizer"] = reward_model_tokenizer
        self._scorers: dict[str, Scorer] = {}

    async def run_single(self, data: Any) -> dict[str, Any]:
        """Score one trajectory: its last output, as verl's own managers do.

        Raises:
            BadInput: the batch lacks a column.
            ScoringFailed: there is no score, and no `neutral` was named.
        """
        tokens = response_tokens(data, -1)
        if len(tokens) > INLINE_TOKENS:
            response = await asyncio.to_thread(decoded, tokens, self._tokenizer)
        else:
            response = decoded(tokens, self._tokenizer)
        row = read_row(data, -1, tokens, response)
        scorer = self._scorers.get(row.data_source)
        if scorer is None:
            scorer = scorer_for(row.data_source, self._settings)
            self._scorers[row.data_source] = scorer
        settled = await scorer.score_one(sample_of(scorer, row, self._settings))
        info, number = row_of(scorer, settled, row, self._tokenizer)
        return {"reward_score": number, "reward_extra_info": info}

    @classmethod
    def assemble_rm_scores(cls, data: Any, scores: list[float]) -> Any:
        """Token-level rewards; see `guerdon.trainers.verl_batch.assemble`."""
        return assemble(data, scores)


class GuerdonBatchManager:
    """The manager of verl's older trainers and forks of them: one call per batch.

    Args:
        tokenizer: of the policy.
        num_examine: how many samples to print; the outcomes are in the extra info instead.
        compute_score: not used: the reward is named in the settings.
        reward_fn_key: column of the data source.
        settings: see `guerdon.trainers.verl.Settings`.
    """

    def __init__(
        self,
        tokenizer: Any,
        num_examine: int = 0,
        compute_score: Any = None,
        reward_fn_key: str = "data_source",
        **settings: Any,
    ) -> None:
        self._tokenizer = tokenizer
        self._key = reward_fn_key
        self._settings = settings

    def __call__(self, data: Any, return_dict: bool = False) -> Any:
        """Score a batch.

        Returns:
            float32 (batch, response), or with `return_dict` also `reward_extra_info`: one list per
            key, with the keys of `compute_score`.

        Raises:
            ScoringFailed: a row has no number.
        """
        if "rm_scores" in set(data.batch.keys()):
            return _scored_already(data, return_dict)
        rows = [self._row(data, index) for index in range(len(data))]
        infos: list[dict[str, Any]] = []
        numbers: list[float] = []
        for row, scorer, settled in self._scored(rows):
            info, number = row_of(scorer, settled, row, self._tokenizer)
            infos.append(info)
            numbers.append(number)
        tensor = assemble(data, numbers)
        if not return_dict:
            return tensor
        columns = {key: [info[key] for info in infos] for key in (infos[0] if infos else ())}
        return {"reward_tensor": tensor, "reward_extra_info": columns}

    def _row(self, data: Any, index: int) -> Row:
        tokens = response_tokens(data, index)
        return read_row(data, index, tokens, decoded(tokens, self._tokenizer), self._key)

    def _scored(self, rows: Sequence[Row]) -> list[tuple[Row, Scorer, Settled]]:
        """All rows of one data source in one batch, the batches beside each other."""
        places: dict[str, list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault(row.data_source, []).append(place)
        scorers = {source: scorer_for(source, self._settings) for source in places}
        batches = {
            source: [sample_of(scorers[source], rows[place], self._settings) for place in mine]
            for source, mine in places.items()
        }

        async def together() -> list[list[Settled]]:
            calls = [scorers[source].score_many(batch) for source, batch in batches.items()]
            return await asyncio.gather(*calls)

        found: dict[int, tuple[Row, Scorer, Settled]] = {}
        for source, results in zip(places, run_coroutine(together), strict=True):
            for place, settled in zip(places[source], results, strict=True):
                found[place] = (rows[place], scorers[source], settled)
        return [found[place] for place in range(len(rows))]


def settings_of(config: Any) -> dict[str, Any]:
    """The settings in a configuration of verl.

    Raises:
        ConfigError: a custom reward function that is not ours stands beside the manager.
    """
    section = config.reward
    found = _mapping(section.get("reward_kwargs"))
    custom = _mapping(section.get("custom_reward_function"))
    path = custom.get("path")
    if path == OWN_MODULE:  # how verl is told to come here where it runs a reward model
        return {**found, **_mapping(custom.get("reward_kwargs"))}
    if path:
        raise ConfigError(
            f"reward.custom_reward_function.path is {path!r}, but the manager 'guerdon' takes its "
            "reward from reward.reward_kwargs: write +reward.reward_kwargs.reward="
            f"verl:{path}:{custom.get('name') or 'compute_score'} (an absolute path), and leave "
            "custom_reward_function out"
        )
    return found


def sample_of(scorer: Scorer, row: Row, settings: Mapping[str, Any]) -> Entry:
    """The sample of a row; `Unusable` for a row that makes none."""
    if row.problem:
        return scorer.unusable(row.problem, row.data_source)
    return scorer.sample(
        row.data_source,
        row.response,
        row.ground_truth,
        row.extra_info,
        settings,
        prompt=row.prompt,
        group_id=row.group,
        prompt_token_ids=row.prompt_ids().tolist() if scorer.reads_prompt_tokens else None,
        response_token_ids=row.response_ids,
        response_mask=row.response_mask,
    )


def row_of(
    scorer: Scorer, settled: Settled, row: Row, tokenizer: Any
) -> tuple[dict[str, Any], float]:
    """The extra info and the number of a scored row."""
    info = scorer.row(settled)
    number = cast("float", info["score"])
    return info, number_for(number, settled.outcome, row.response_ids, tokenizer)


def _mapping(node: Any) -> dict[str, Any]:
    return {str(key): value for key, value in dict(node or {}).items()}


def _scored_already(data: Any, return_dict: bool) -> Any:
    """What verl's managers give for a batch that has `rm_scores`."""
    tensor = data.batch["rm_scores"]
    if not return_dict:
        return tensor
    keys = data.meta_info.get("reward_extra_keys", [])
    columns = {key: data.non_tensor_batch[key] for key in keys}
    return {"reward_tensor": tensor, "reward_extra_info": columns}
