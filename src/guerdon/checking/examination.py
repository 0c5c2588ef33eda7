"""The self-check of a reward: its own fixtures, and probes that every reward must survive.

Everything is scored through a `RewardService`, by the backend that the reward would use, so that a
check shows what a training run would meet. A case that could not be run is never a pass.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from guerdon.checking import probe
from guerdon.checking.report import Case, RewardReport, Verdict
from guerdon.declaration import shown_options
from guerdon.errors import Blame, FailureKind, GuerdonError, MissingExtra
from guerdon.fixture import Fixture
from guerdon.models.device import visible_gpus
from guerdon.models.text import TextModelReward
from guerdon.outcome import Abstention, Failure, Outcome, Score
from guerdon.policy import NO_RETRY, Policy
from guerdon.reward import BaseReward, FunctionReward
from guerdon.sample import Sample
from guerdon.service import RewardService

REPEATS = 3
"""How often the same samples are scored to see whether the values are the same."""

CASE_SECONDS = 30.0
"""How long one batch of cases may take in all, beside the deadline of each sample."""

GROUP = "check"
"""Group of a sample that has none, for rewards that score whole groups."""

SAMPLES = "samples of its fixtures"
BLAMELESS = "no fault of the scorer"

_UNSUITABLE = (FailureKind.BAD_INPUT, FailureKind.RAISED)
_MASK_ALL = Policy(retry=NO_RETRY, on=dict.fromkeys(map(str, Blame), "mask"))
_INSTALL = re.compile(r"pip install '[^']+' in the clone, or '[^']+' where an index has it")


def check(
    reward: BaseReward, *, backend: Any = None, seconds: float = CASE_SECONDS
) -> Iterator[RewardReport]:
    """Check every leaf of a reward, then the composition as a whole.

    Args:
        reward: a leaf or a composition.
        backend: as for `RewardService`.
        seconds: how long one batch of cases may take.

    Example:
        >>> from guerdon.reward import reward
        >>> @reward(value_range=(0.0, 1.0), auto_register=False)
        ... def exact(response: str, ground_truth: str) -> bool:
        ...     return response == ground_truth
        >>> report, = check(exact)
        >>> report.passed, report.notes[0]
        (True, 'has no fixtures: nothing shows that it scores what it should')
    """
    seen: set[str] = set()
    bases: list[Sample] = []
    for path, leaf in leaves(reward):
        if leaf.fingerprint not in seen:
            seen.add(leaf.fingerprint)
            bases.extend(fixture.sample for fixture in leaf.fixtures)
            yield _Examination(path, leaf, backend, seconds).leaf()
    if reward.children:
        yield _Examination(reward.name, reward, backend, seconds).composition(bases)


def leaves(reward: BaseReward, path: str = "") -> Iterator[tuple[str, BaseReward]]:
    """The rewards without children, with their path in the composition."""
    own_path = path or reward.name
    if not reward.children:
        yield own_path, reward
    for name, child in reward.children.items():
        yield from leaves(child, f"{own_path}/{name}")


def changed_options(reward: BaseReward) -> dict[str, Any]:
    """The options of a reward that differ from its defaults; fixtures speak of the defaults."""
    defaults = _default_options(reward)
    return {
        key: value
        for key, value in reward.options.items()
        if key not in defaults or (defaults[key] is not value and defaults[key] != value)
    }


class _Examination:
    """One reward under check."""

    def __init__(self, path: str, reward: BaseReward, backend: Any, seconds: float) -> None:
        self.path = path
        self.reward = reward
        self.backend = backend
        self.seconds = seconds
        self.cases: list[Case] = []
        self.notes: list[str] = []
        self.needs: list[str] = []

    def leaf(self) -> RewardReport:
        """Fixtures and probes of a reward without children."""
        fixtures = list(self.reward.fixtures)
        if not fixtures:
            self.notes.append("has no fixtures: nothing shows that it scores what it should")
        if all(map(math.isinf, self.reward.value_range)):
            self.notes.append("declares no value_range: any finite number passes")
        if self.reward.work == "gpu" and not visible_gpus():
            self.needs.append("a GPU: none is visible here")
            self.cases += [_not_run(fixture) for fixture in fixtures]
            return self._report()
        if isinstance(self.reward, TextModelReward):
            self._model(self.reward)
        if not self.needs:
            self._fixtures(fixtures)
        if not self.needs:
            self._probes([fixture.sample for fixture in fixtures])
        return self._report()

    def composition(self, samples: Sequence[Sample]) -> RewardReport:
        """Probes of a composition, on the samples of its leaves' fixtures."""
        self._probes(samples)
        return self._report()

    def _report(self) -> RewardReport:
        reward = self.reward
        return RewardReport(
            path=self.path,
            reward=reward.name,
            fingerprint=reward.fingerprint,
            value_range=reward.value_range,
            deadline=reward.deadline,
            work=reward.work,
            options={} if reward.children else shown_options(changed_options(reward)),
            cases=tuple(self.cases),
            notes=tuple(self.notes),
            needs=tuple(dict.fromkeys(self.needs)),
        )

    def _model(self, reward: TextModelReward) -> None:
        """The self-check of a model, and the tolerance that it showed."""
        try:
            card = reward.examine()
        except MissingExtra as error:
            line = _INSTALL.search(str(error))
            self.needs.append(line.group() if line else str(error))
            return
        for finding in card.findings:
            if finding.verdict == "warn":
                self.notes.append(f"{finding.name}: {finding.got}")
                continue
            fine = {"pass": True, "fail": False}.get(finding.verdict)
            self._add(finding.name, finding.expected, finding.got, fine)
        self.notes.append(
            f"tolerance {card.tolerance:.1e}: {card.dtype} on {card.device} by the path "
            f"'{card.path}'; {card.architecture}, {card.head}"
        )

    def _fixtures(self, fixtures: Sequence[Fixture]) -> None:
        """Run the fixtures under the default options, which they speak of."""
        subject = self.reward
        if fixtures and changed_options(subject):
            default = _with_default_options(subject)
            if default is not None:
                self.notes.append("the fixtures were run with the default options")
            subject = default or subject
        with self._service(subject) as service:
            outcomes = self._score(service, [fixture.sample for fixture in fixtures])
        for fixture, outcome in zip(fixtures, outcomes, strict=True):
            self._fixture(fixture, outcome)

    def _fixture(self, fixture: Fixture, outcome: Outcome) -> None:
        mismatch = fixture.mismatch(outcome)
        missing = mismatch is not None and self._is_missing(outcome)
        verdict = Verdict.NOT_RUN if missing else Verdict.FAIL if mismatch else Verdict.PASS
        self.cases.append(
            Case(
                case=fixture.name,
                kind=fixture.kind,
                expected=_expectation(fixture),
                got=describe(outcome),
                verdict=verdict,
                detail=_message(outcome),
            )
        )

    def _is_missing(self, outcome: Outcome) -> bool:
        """Whether the reward lacks something here: a package, or a service that answers."""
        if not isinstance(outcome, Failure):
            return False
        if "MissingExtra" in outcome.message:
            line = _INSTALL.search(outcome.message)
            self.needs.append(line.group() if line else outcome.message)
            return True
        if outcome.kind is FailureKind.UNAVAILABLE:
            self.needs.append(outcome.message)
            return True
        return False

    def _probes(self, samples: Sequence[Sample]) -> None:
        """What every reward must survive, on samples like those of its fixtures."""
        invented = not samples
        samples = samples or [probe.invented()]
        with self._service(self.reward) as service:
            first = self._score(service, samples)
            name = "an invented sample" if invented else SAMPLES
            lacking = [outcome for outcome in first if self._is_missing(outcome)]
            if lacking:
                self._probe(name, BLAMELESS, None, lacking[0])
                return
            base = next((s for s, o in zip(samples, first, strict=True) if _valid(o)), None)
            if invented and _is_unsuitable(first[0]):
                self.notes.append(
                    "an invented sample does not suit it: only fixtures can show if it works"
                )
                self._probe(name, BLAMELESS, None, first[0])
                return
            self._scores_samples(first, name)
            if base is None:
                self.notes.append("scores no sample of its fixtures: nothing else was probed")
                return
            self._same_again(service, samples, first)
            self._unchanged(service, samples)
            self._damage(service, base)

    def _damage(self, service: RewardService, base: Sample) -> None:
        for name, sample in probe.damaged(self.reward, base):
            if len(sample.response_text or "") >= probe.LONG_CHARACTERS and self._is_service():
                self._add(name, BLAMELESS, "", None, "not sent to a service (work='io')")
                continue
            (outcome,) = self._score(service, [sample])
            self._probe(name, BLAMELESS, _blameless(outcome), outcome)
        for name, sample in probe.without_each(self.reward, base):
            (outcome,) = self._score(service, [sample])
            fine = isinstance(outcome, Failure) and outcome.kind is FailureKind.BAD_INPUT
            self._probe(f"without {name}", "bad_input", fine, outcome)

    def _scores_samples(self, outcomes: Sequence[Outcome], name: str) -> None:
        """The samples of the fixtures, with the options as configured."""
        lost = next((o for o in outcomes if not _blameless(o)), None)
        if lost is None:
            self._add(name, BLAMELESS, _summary(outcomes), True)
        else:
            self._probe(name, BLAMELESS, False, lost)

    def _same_again(
        self, service: RewardService, samples: Sequence[Sample], first: Sequence[Outcome]
    ) -> None:
        """Score again in the same and in the reverse order."""
        expected = f"the same {REPEATS} times"
        for again in range(1, REPEATS):
            order = range(len(samples)) if again % 2 else range(len(samples) - 1, -1, -1)
            outcomes = self._score(service, [samples[i] for i in order])
            for position, outcome in zip(order, outcomes, strict=True):
                before, now = _value(first[position]), _value(outcome)
                if before != now:
                    self._add("scored again", expected, f"{before}, then {now}", False)
                    return
        self._add("scored again", expected, "the same", True)

    def _unchanged(self, service: RewardService, samples: Sequence[Sample]) -> None:
        given = [probe.owned(sample) for sample in samples]
        before = [probe.snapshot(sample) for sample in given]
        self._score(service, given)
        after = [probe.snapshot(sample) for sample in given]
        same = before == after
        got = "unchanged" if same else "the reward changed a sample"
        self._add("its input", "unchanged", got, same)

    def _is_service(self) -> bool:
        """Whether a leaf waits for something else, which a megabyte may cost money."""
        return any(leaf.work == "io" for _, leaf in leaves(self.reward))

    def _probe(self, name: str, expected: str, fine: bool | None, outcome: Outcome) -> None:
        self._add(name, expected, describe(outcome), fine, _message(outcome))

    def _add(self, name: str, expected: str, got: str, fine: bool | None, detail: str = "") -> None:
        verdict = Verdict.NOT_RUN if fine is None else Verdict.PASS if fine else Verdict.FAIL
        case = Case(
            case=name, kind="probe", expected=expected, got=got, verdict=verdict, detail=detail
        )
        self.cases.append(case)

    def _service(self, reward: BaseReward) -> RewardService:
        return RewardService(reward, backend=self.backend, policy=_MASK_ALL)

    def _score(self, service: RewardService, samples: Sequence[Sample]) -> list[Outcome]:
        """Outcomes in order; samples of a batch or group reward, and equal ids, go one by one."""
        if service.reward.scope == "group":
            samples = [s if s.group_id is not None else replace(s, group_id=GROUP) for s in samples]
        ids = [sample.sample_id for sample in samples if sample.sample_id is not None]
        together = service.reward.scope == "sample" and len(set(ids)) == len(ids)
        if together:
            return list(service.score_sync(samples, timeout=self.seconds))
        return [service.score_sync([s], timeout=self.seconds)[0] for s in samples]


def describe(outcome: Outcome) -> str:
    """An outcome in a few words.

    Example:
        >>> describe(Score(value=0.5)), describe(Abstention())
        ('0.5', 'abstention')
    """
    if isinstance(outcome, Score):
        return f"{outcome.value:g}"
    if isinstance(outcome, Abstention):
        return "abstention"
    return f"{outcome.kind} ({outcome.blame})"


def _message(outcome: Outcome) -> str:
    return outcome.message if isinstance(outcome, Failure) else ""


def _expectation(fixture: Fixture) -> str:
    if fixture.expect is None:
        return "any score"
    return fixture.expect if isinstance(fixture.expect, str) else f"{fixture.expect:g}"


def _not_run(fixture: Fixture) -> Case:
    return Case(
        case=fixture.name,
        kind=fixture.kind,
        expected=_expectation(fixture),
        got="",
        verdict=Verdict.NOT_RUN,
    )


def _summary(outcomes: Sequence[Outcome]) -> str:
    counts: dict[str, int] = {}
    for outcome in outcomes:
        name = "score" if isinstance(outcome, Score) else describe(outcome).partition(" ")[0]
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _is_unsuitable(outcome: Outcome) -> bool:
    """Whether a failure may only say that an invented sample is not what the reward is for."""
    return isinstance(outcome, Failure) and outcome.kind in _UNSUITABLE


def _valid(outcome: Outcome) -> bool:
    return isinstance(outcome, Score | Abstention)


def _blameless(outcome: Outcome) -> bool:
    """Whether the reward did its part: a value, or a failure that is the data's or the policy's."""
    return not isinstance(outcome, Failure) or outcome.blame in (Blame.DATA, Blame.CANDIDATE)


def _value(outcome: Outcome) -> float | str:
    if isinstance(outcome, Score):
        return outcome.value
    return "abstention" if isinstance(outcome, Abstention) else str(outcome.kind)


def _default_options(reward: BaseReward) -> Mapping[str, Any]:
    if isinstance(reward, FunctionReward):
        return reward.parameters.options
    import inspect

    found = inspect.signature(type(reward)).parameters.values()
    return {p.name: p.default for p in found if p.default is not p.empty}


def _with_default_options(reward: BaseReward) -> BaseReward | None:
    """The reward with the options that it has by itself; None where some have no default."""
    defaults = _default_options(reward)
    changed = changed_options(reward)
    if any(key not in defaults for key in changed):
        return None
    try:
        return reward.bind(**{key: defaults[key] for key in changed})
    except GuerdonError:
        return None
