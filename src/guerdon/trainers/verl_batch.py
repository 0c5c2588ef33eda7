"""Rows of verl's `DataProto` as samples, and scores as its token-level tensors.

Nothing here imports verl: a batch is anything with `batch` (tensors by name), `non_tensor_batch`
(arrays by name) and `len`. Layouts: verl 0.9.1, `verl/experimental/agent_loop/agent_loop.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

from guerdon.errors import BadInput, ConfigError
from guerdon.outcome import Outcome, Score, Span
from guerdon.tokens import AdaptiveKL, Controller, FixedKL, character_offsets, subtract_kl
from guerdon.tokens.offsets import Offsets
from guerdon.tokens.placement import put
from guerdon.tokens.position import Positions, last_token
from guerdon.tokens.spans import place_spans

ESTIMATOR_CLAMP = "verl"
"""Bounds of verl's own estimators; see `guerdon.tokens.divergence.CLAMPS`."""


class Row(NamedTuple):
    """What one row says, its response decoded.

    Attributes:
        data_source: routes the reward.
        response: text; see `decoded`.
        response_ids: tokens of the response, padding left out.
        response_mask: 1 for those that the policy wrote and 0 for what tools answered; None in the
            streaming path, where verl does not hand it over.
        prompt_ids: gives the tokens of the prompt as an array; few rewards read them.
        ground_truth: `reward_model.ground_truth`, None where there is none.
        extra_info: a copy, with what verl adds to it.
        prompt: messages or text, None where the batch has none.
        group: verl's `uid` of the prompt.
        problem: why the row makes no sample.
    """

    data_source: str
    response: str
    response_ids: list[int]
    response_mask: list[int] | None
    prompt_ids: Callable[[], Any]
    ground_truth: Any
    extra_info: dict[str, Any]
    prompt: Any
    group: str | None
    problem: str


class SpannedScore(float):
    """A score that says which tokens it is about; to everybody else it is the number.

    Attributes:
        spans: of the response.
        offsets: characters of each token, where a span counts characters.
    """

    spans: tuple[Span, ...]
    offsets: Offsets | None

    def __new__(  # noqa: D102 - its arguments are the attributes
        cls, value: float, spans: Sequence[Span], offsets: Offsets | None
    ) -> SpannedScore:
        made = super().__new__(cls, value)
        made.spans, made.offsets = tuple(spans), offsets
        return made

    def __reduce__(self) -> Any:
        return SpannedScore, (float(self), self.spans, self.offsets)


def read_row(data: Any, index: int, tokens: Any, response: str, key: str = "data_source") -> Row:
    """One row of a batch.

    Args:
        data: a `DataProto`.
        index: of the row; -1 is the last output of a trajectory, the one that verl scores.
        tokens: see `response_tokens`.
        response: what they say; see `decoded`.
        key: column of the data source.

    Raises:
        BadInput: a column is missing; it names what there is.
    """
    columns = data.non_tensor_batch
    for name in (key, "reward_model"):
        if name not in columns:
            raise BadInput(
                f"verl's batch has no column {name!r} (it has {', '.join(sorted(columns))}): rows "
                "need data_source and reward_model; verl's V1 trainer hands neither to a colocated "
                "reward model"
            )
    problem = _problem(columns, index)
    return Row(
        data_source=str(columns[key][index]),
        response=response,
        response_ids=tokens.tolist(),
        response_mask=_written(data, index, len(tokens)),
        prompt_ids=partial(prompt_tokens, data, index),
        ground_truth=None if problem else columns["reward_model"][index].get("ground_truth"),
        extra_info={} if problem else _extra_info(columns, index),
        prompt=columns["raw_prompt"][index] if "raw_prompt" in columns else None,
        group=str(columns["uid"][index]) if "uid" in columns else None,
        problem=problem,
    )


def prompt_tokens(data: Any, index: int) -> Any:
    """The tokens of a prompt without padding, as an array.

    Padding is at the end where verl says their number as `prompt_len`, else at the start.
    """
    prompts = _array(data, "prompts")[index]
    lengths = data.non_tensor_batch.get("prompt_len")
    if lengths is not None:
        return prompts[: int(lengths[index])]
    width = len(prompts)
    return prompts[width - int(_array(data, "attention_mask")[index, :width].sum()) :]


def response_tokens(data: Any, index: int) -> Any:
    """The tokens of a response without padding, as an array; none for an empty one.

    verl says their number as `response_len` where outputs of several lengths are together: the
    mask of those is padded at its end, and its last columns are not the response's.
    """
    response = _array(data, "responses")[index]
    lengths = data.non_tensor_batch.get("response_len")
    if lengths is not None:
        return response[: int(lengths[index])]
    mask = _array(data, "attention_mask")[index]  # of the prompt and the response
    return response[: int(mask[len(mask) - len(response) :].sum())]


def _array(data: Any, name: str) -> Any:
    """A tensor as an array: each step of an index takes torch microseconds."""
    return data.batch[name].numpy(force=True)


def decoded(tokens: Any, tokenizer: Any) -> str:
    """Text of tokens, special ones skipped, as verl's own managers decode it.

    Args:
        tokens: an array, which tokenizers check faster than a list.
        tokenizer: of the policy.
    """
    return tokenizer.decode(tokens, skip_special_tokens=True)


def _written(data: Any, index: int, count: int) -> list[int] | None:
    if "response_mask" not in data.batch.keys():  # noqa: SIM118 - a TensorDict is no mapping
        return None
    return _array(data, "response_mask")[index, :count].tolist()


def _problem(columns: Mapping[str, Any], index: int) -> str:
    """What is wrong with the cells of a row that must be mappings; "" if nothing is."""
    truth = columns["reward_model"][index]
    if not isinstance(truth, Mapping):
        return f"reward_model is a {type(truth).__name__}, not a mapping"
    info = columns["extra_info"][index] if "extra_info" in columns else None
    if info is not None and not isinstance(info, Mapping):
        return f"extra_info is a {type(info).__name__}, not a mapping"
    return ""


def _extra_info(columns: Mapping[str, Any], index: int) -> dict[str, Any]:
    """As verl's naive manager gives it, without changing the row that its rollouts share."""
    given = columns["extra_info"][index] if "extra_info" in columns else None
    found = dict(cast("Mapping[str, Any]", given or {}))
    tools = columns["tool_extra_fields"][index] if "tool_extra_fields" in columns else None
    if tools is not None:
        found.update(tools)
    found["num_turns"] = columns["__num_turns__"][index] if "__num_turns__" in columns else None
    found["rollout_reward_scores"] = (
        columns["reward_scores"][index] if ("reward_scores" in columns) else {}
    )
    return found


def number_for(
    number: float, outcome: Outcome, response_tokens: Sequence[int], tokenizer: Any
) -> float:
    """The number of a row, with the spans of its score where there are any."""
    if not isinstance(outcome, Score) or not outcome.spans:
        return number
    offsets: Offsets | None = None
    if any(span.unit == "char" for span in outcome.spans):

        def decode(ids: list[int]) -> str:
            return tokenizer.decode(ids, skip_special_tokens=True)

        offsets = character_offsets(response_tokens, decode)
    return SpannedScore(number, outcome.spans, offsets)


def assemble(data: Any, scores: Sequence[float]) -> Any:
    """verl's `rm_scores`: float32 (batch, response).

    A score with spans is spread over the tokens that they name; any other stands at the last token
    of its response. An empty response has no such token: its score stands in the first column,
    which is padding, so that sums over the row (group baselines) have it and no token learns.

    Raises:
        BadInput: a span covers no token of the policy.
    """
    mask = response_mask(data)
    end = last_token(mask)
    spanned = [isinstance(score, SpannedScore) for score in scores]
    plain = [0.0 if there else float(s) for s, there in zip(scores, spanned, strict=True)]
    everywhere = Positions(end.column * end.exists, end.exists | True)
    rewards = put(plain, everywhere, mask).rewards
    if any(spanned):
        there = [s if isinstance(s, SpannedScore) else None for s in scores]
        placed = place_spans(
            [() if score is None else score.spans for score in there],
            mask,
            offsets=[None if score is None else score.offsets for score in there],
        )
        if placed.lost:
            lost = placed.lost[0]
            raise BadInput(f"row {lost.row}, span {lost.span}: {lost.reason}")
        rewards = rewards + placed.rewards
    return rewards


def response_mask(data: Any) -> Any:
    """1 for each token that the policy wrote, (batch, response)."""
    names = set(data.batch.keys())
    if "response_mask" in names:
        return data.batch["response_mask"]
    responses = data.batch["responses"]
    lengths = data.non_tensor_batch.get("response_len")
    if lengths is not None:
        return responses.new_tensor(
            [[i < int(length) for i in range(responses.shape[1])] for length in lengths]
        )
    return data.batch["attention_mask"][:, data.batch["prompts"].shape[1] :]


def controller(kind: str, coefficient: float, *, target: float = 0.1, horizon: int = 10_000) -> Any:
    """The controller of `algorithm.kl_ctrl`.

    Args:
        kind: `fixed` or `adaptive`.
        coefficient: `kl_coef`.
        target: `target_kl`.
        horizon: samples.

    Raises:
        ConfigError: another kind.

    Example:
        >>> controller("fixed", 0.001).coefficient
        0.001
    """
    if kind == "fixed":
        return FixedKL(coefficient)
    if kind == "adaptive":
        return AdaptiveKL(coefficient, target=target, horizon=horizon)
    raise ConfigError(f"kl_ctrl.type is 'fixed' or 'adaptive', got {kind!r}")


def apply_kl_penalty(
    data: Any, kl_ctrl: Controller, kl_penalty: str = "kl"
) -> tuple[Any, dict[str, float]]:
    """verl's function of that name, with the numbers of `guerdon.tokens.subtract_kl`.

    Rows without a token of the policy (aborted ones) are not measured as no divergence, and the
    state of an adaptive controller can be kept in a checkpoint.

    Args:
        data: a `DataProto` with `token_level_scores`, `old_log_probs`, `ref_log_prob` and
            `response_mask`; gets `token_level_rewards`.
        kl_ctrl: see `controller`.
        kl_penalty: `kl`, `abs`, `mse`, `low_var_kl` or their other names.

    Returns:
        The data and verl's two metrics.
    """
    batch = data.batch
    coefficient = kl_ctrl.coefficient
    shaped = subtract_kl(
        batch["token_level_scores"],
        batch["old_log_probs"],
        batch["ref_log_prob"],
        batch["response_mask"],
        controller=kl_ctrl,
        estimator=kl_penalty,
        clamp=ESTIMATOR_CLAMP,
    )
    batch["token_level_rewards"] = shaped.rewards
    return data, {
        "actor/reward_kl_penalty": shaped.measured.mean,
        "actor/reward_kl_penalty_coeff": coefficient,
    }
