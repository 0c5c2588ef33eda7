"""What all rewards that ask a judge have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from msgspec.structs import replace

from guerdon.errors import ConfigError
from guerdon.judges.card import card_of
from guerdon.judges.judge import Judge, judge_of
from guerdon.judges.question import Question, Result, Ruling, ask
from guerdon.judges.settings import JudgeSettings, settings_of
from guerdon.judges.template import Template, template_of
from guerdon.judges.transcript import LONGEST, Shown, shown
from guerdon.outcome import EMPTY, Score
from guerdon.reward import BaseReward
from guerdon.sample import Message

CALLS = 4096
"""Samples in flight; the judge's own limits decide how many requests are."""


class Judged(BaseReward):
    """Base class of rewards that ask a judge.

    A subclass takes `judge` among its options and calls `_set_up` in its constructor.
    """

    auto_register = False
    # Of what a judge is shown: raised with every change of `guerdon.judges.fence`.
    version = "2"
    work = "io"
    value_range = (0.0, 1.0)
    concurrency = CALLS
    # The judge's client has tried again what may be tried again.
    relays = True

    prompt: ClassVar[str] = ""
    """Name of the shipped template."""
    needs: ClassVar[tuple[str, ...]] = ("candidate",)
    """Placeholders that a template must have."""

    def _set_up(
        self,
        judge: object,
        *,
        reask: int = 0,
        template: str | None = None,
        longest: int = LONGEST,
        card: str | None = None,
    ) -> None:
        """Check and keep the options that all kinds have.

        Args:
            judge: settings, or a mapping with their fields.
            reask: how often a question without a verdict is put again; then it is an abstention.
            template: file of a template in the place of the shipped one.
            longest: characters of a conversation that are shown.
            card: file that `guerdon judge calibrate` wrote for this reward.
        """
        if longest < 1:
            raise ConfigError(f"reward '{self.name}': longest is >= 1")
        self.longest = longest
        self.template: Template = template_of(template, self.prompt, self.needs)
        self._set_up_judge(judge, reask=reask, card=card)

    def _set_up_judge(self, judge: object, *, reask: int, card: str | None) -> None:
        """Check and keep what has to do with the judge alone; the question is known by now."""
        if reask < 0:
            raise ConfigError(f"reward '{self.name}': reask is >= 0")
        self.settings: JudgeSettings = settings_of(judge)
        self.judge: Judge = judge_of(self.settings)
        self.reask = reask
        # Settings have a fingerprint, and show no token.
        self._options = {**self._options, "judge": self.settings}
        self._options.pop("card", None)
        self._card_path = card
        self._card: str | None = None
        if card is not None:
            self._card = card_of(card, self.fingerprint).digest

    def fingerprint_extra(self) -> Mapping[str, Any]:
        """The text of the questions."""
        return {"template": [list(section) for section in self.template.sections]}

    def bind(self, **options: Any) -> BaseReward:
        """A copy with other constructor arguments."""
        return super().bind(**{"card": self._card_path, **options} if self._card_path else options)

    def uncached(self) -> BaseReward:
        """The same reward, which asks its judge every time; its fingerprint is the same."""
        return self.bind(judge=replace(self.settings, cache="off"))

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Of a published question: which words are asked, and whether they are upstream's."""
        return EMPTY

    @property
    def judge_names(self) -> tuple[str, ...]:
        """What its judges are called."""
        return (self.settings.label,)

    def candidate(self, messages: Sequence[Message]) -> Shown:
        """What the policy wrote, as it is shown."""
        return shown(messages, self.longest)

    async def _ask(self, question: Question) -> Result:
        return await ask(self.judge, question, self.reask)

    def _score(
        self,
        value: float,
        rulings: Sequence[Ruling],
        *,
        cut: int = 0,
        components: Mapping[str, float | None] = EMPTY,
        metrics: Mapping[str, float | None] = EMPTY,
        info: Mapping[str, Any] = EMPTY,
    ) -> Score:
        """A score with what its rulings cost and said."""
        found: dict[str, Any] = {"rulings": [ruling.info(self.judge) for ruling in rulings]}
        if self._card is not None:
            found["card"] = self._card
        return Score(
            value=value,
            components=components,
            metrics={**summed(rulings), "judge_cut": float(cut), **metrics},
            info={**found, **info},
        )


def summed(rulings: Sequence[Ruling]) -> dict[str, float | None]:
    """The metrics of several rulings together: sums, and the share that was cached."""
    total: dict[str, float | None] = {}
    for ruling in rulings:
        for name, number in ruling.metrics.items():
            total[name] = (total.get(name) or 0.0) + (number or 0.0)
    if rulings:
        total["judge_cached"] = (total["judge_cached"] or 0.0) / len(rulings)
    return total


def prompt_of(messages: Sequence[Message] | None, longest: int) -> dict[str, str]:
    """The placeholder of the prompt, where a sample has one."""
    if not messages:
        return {}
    return {"prompt": shown(messages, longest).text}
