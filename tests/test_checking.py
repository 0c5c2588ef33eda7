"""The self-check: what passes, what fails, and what it refuses to pass silently."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from guerdon.checking import Case, RewardReport, Verdict, changed_options, check, visible_gpus
from guerdon.compose import WeightedSum
from guerdon.errors import Blame, FailureKind, MissingExtra, RewardFailure, Unavailable
from guerdon.fixture import Fixture
from guerdon.remote.pooling import PoolingReward
from guerdon.reward import BaseReward, FunctionReward
from guerdon.sample import Message, Sample

RIGHT = Fixture(
    name="right",
    kind="full",
    sample=Sample(response="4", ground_truth="4", metadata={"tags": ["a"]}),
    expect=1.0,
)
WRONG = Fixture(
    name="wrong", kind="zero", sample=Sample(response="5", ground_truth="4"), expect=0.0
)
RESPONSE_PROBES = (
    "empty response",
    "lone surrogate and NUL",
    "1 MB response",
    "1 MB of open brackets",
)


def make(function: Callable[..., Any], **settings: Any) -> BaseReward:
    settings.setdefault("value_range", (0.0, 1.0))
    settings.setdefault("fixtures", (RIGHT, WRONG))
    settings.setdefault("name", "checked")
    return FunctionReward(function, **settings)


def only(reward: BaseReward, **arguments: Any) -> RewardReport:
    (report,) = check(reward, **arguments)
    return report


def failed(report: RewardReport) -> list[str]:
    return [case.case for case in report.cases if case.verdict is Verdict.FAIL]


def named(report: RewardReport, name: str) -> Case:
    return next(case for case in report.cases if case.case == name)


def exact(response: str, ground_truth: str) -> bool:
    return response == ground_truth


def test_a_sound_reward_passes_its_fixtures_and_every_probe():
    report = only(make(exact))
    assert report.passed
    assert [case.case for case in report.cases] == [
        "right",
        "wrong",
        "samples of its fixtures",
        "scored again",
        "its input",
        *RESPONSE_PROBES,
        "without response",
        "without ground_truth",
    ]
    assert (report.notes, report.needs) == ((), ())


def first_letter(response: str, ground_truth: str) -> bool:
    return response[0] == ground_truth[0]


def surrogates(response: str, ground_truth: str) -> bool:
    return response.encode() == ground_truth.encode()


def always_two(response: str) -> float:
    return 2.0


def nan(response: str) -> float:
    return float("nan") if len(response) > 1 else float(response == "4")


def leaves_the_process(response: str) -> float:
    sys.exit(3)


def inverted(response: str, ground_truth: str) -> bool:
    return response != ground_truth


def forgiving(response: str = "", ground_truth: str = "") -> bool:
    return response == ground_truth


def no_type(response: str, ground_truth: str) -> object:
    return "good" if len(response) > 1 else response == ground_truth


@pytest.mark.parametrize(
    ("function", "cases"),
    [
        (first_letter, ["empty response"]),
        (surrogates, ["lone surrogate and NUL"]),
        (always_two, ["right", "wrong", "samples of its fixtures"]),
        (nan, ["lone surrogate and NUL", "1 MB response", "1 MB of open brackets"]),
        (leaves_the_process, ["right", "wrong", "samples of its fixtures"]),
        (inverted, ["right", "wrong"]),
        (no_type, ["lone surrogate and NUL", "1 MB response", "1 MB of open brackets"]),
        (forgiving, []),
    ],
)
def test_each_fault_fails_the_case_that_shows_it(
    function: Callable[..., Any], cases: Sequence[str]
):
    report = only(make(function))
    assert failed(report) == cases
    assert report.passed is (not cases)


def test_a_failed_case_says_what_came_out():
    case = named(only(make(first_letter)), "empty response")
    assert case.got == "raised (scorer)"
    assert case.detail == "IndexError: string index out of range"


def test_a_value_that_changes_from_call_to_call_fails():
    numbers = itertools.cycle((0.25, 0.75))

    def unsteady(response: str) -> float:
        return next(numbers)

    report = only(make(unsteady, fixtures=(RIGHT,)))
    assert "scored again" in failed(report)
    assert named(report, "scored again").got.endswith("5")


def test_a_value_that_depends_on_its_place_in_the_batch_fails():
    def by_place(responses: list[str]) -> list[float]:
        return [float(place) for place in range(len(responses))]

    fixtures = [
        Fixture(name=text, kind="deterministic", sample=Sample(response=text)) for text in "ab"
    ]
    report = only(make(by_place, scope="batch", fixtures=fixtures, batch_size=2))
    assert report.passed, "one sample per call has one place only"


class Tampering(BaseReward):
    """Changes a bytearray of the sample, which travels by reference."""

    auto_register = False
    value_range = (0.0, 1.0)
    fixtures = ()

    def call(self, *, response: str, scores: Any) -> float:
        scores[0] += 1
        return 1.0


def test_a_reward_that_changes_its_input_fails():
    sample = Sample(response="4", metadata={"scores": bytearray(2)})
    reward = Tampering().configure(
        fixtures=(Fixture(name="array", kind="deterministic", sample=sample),)
    )
    report = only(reward)
    assert failed(report) == ["its input"]
    assert named(report, "its input").got == "the reward changed a sample"


def test_a_loop_ends_at_the_deadline_and_is_the_scorers_fault():
    def loop(response: str) -> float:
        while len(response) == 1:
            pass
        return 0.0

    report = only(make(loop, deadline=0.2, fixtures=(RIGHT,)))
    assert failed(report) == ["right", "samples of its fixtures"]
    assert named(report, "right").got.startswith("timeout")


def test_a_slow_reward_without_a_deadline_ends_at_the_checks_own_time():
    def slow_on_long(response: str) -> float:
        import time

        end = time.monotonic() + (1.0 if len(response) > 1000 else 0.0)
        while time.monotonic() < end:
            pass
        return 1.0

    report = only(make(slow_on_long, fixtures=(RIGHT,)), seconds=0.2)
    assert failed(report) == ["1 MB response", "1 MB of open brackets"]


def test_a_candidates_fault_is_no_fault_of_the_scorer():
    def blames_the_candidate(response: str) -> float:
        if len(response) > 100:
            raise RewardFailure("too long", kind=FailureKind.TIMEOUT, blame=Blame.CANDIDATE)
        return 1.0

    assert only(make(blames_the_candidate, fixtures=(RIGHT,))).passed


def test_async_rewards_are_checked_too():
    async def scored(response: str, ground_truth: str) -> bool:
        return response == ground_truth

    assert only(make(scored)).passed


@pytest.mark.parametrize("scope", ["batch", "group"])
def test_batch_and_group_rewards_get_one_fixture_at_a_time(scope: str):
    sizes: list[int] = []

    def scored(responses: list[str], ground_truths: list[str]) -> list[bool]:
        sizes.append(len(responses))
        return [r == g for r, g in zip(responses, ground_truths, strict=True)]

    report = only(make(scored, scope=scope))
    assert report.passed
    assert named(report, "without ground_truths").got == "bad_input (data)"
    assert set(sizes) == {1}


def test_conversations_keep_their_turns():
    seen: list[int] = []

    def turns(response_messages: Sequence[Message]) -> float:
        seen.append(len(response_messages))
        return float(bool(response_messages[-1].text))

    talk = Sample(
        response=(
            Message("assistant", "a tool, please"),
            Message("tool", "here"),
            Message("assistant", "done"),
        )
    )
    fixture = Fixture(name="talk", kind="full", sample=talk, expect=1.0)
    report = only(make(turns, fixtures=(fixture,)))
    assert report.passed
    assert named(report, "empty response").got == "0"
    assert set(seen) == {3}


class TestWithoutFixtures:
    def test_it_is_said_and_probed_with_an_invented_sample(self):
        report = only(make(exact, fixtures=()))
        assert report.passed
        assert report.notes == ("has no fixtures: nothing shows that it scores what it should",)
        assert named(report, "an invented sample").verdict is Verdict.PASS

    def test_nothing_passes_where_the_invented_sample_does_not_suit(self):
        def needs_level(response: str, level: int) -> float:
            return float(level)

        report = only(make(needs_level, fixtures=()))
        assert [case.verdict for case in report.cases] == [Verdict.NOT_RUN]
        assert "an invented sample does not suit it" in report.notes[1]

    def test_what_no_sample_excuses_fails(self):
        def nan_always(response: str) -> float:
            return float("nan")

        report = only(make(nan_always, fixtures=()))
        assert failed(report) == ["an invented sample"]

    def test_a_missing_range_is_said(self):
        report = only(make(exact, value_range=(float("-inf"), float("inf"))))
        assert report.notes == ("declares no value_range: any finite number passes",)


class TestWhatIsMissing:
    def test_an_extra_is_named_with_the_line_that_installs_it(self):
        def needs_extra(response: str) -> float:
            raise MissingExtra("sympy", "math", "checking")

        report = only(make(needs_extra))
        assert not report.passed
        assert report.needs == (
            "pip install '.[math]' in the clone, or 'guerdon[math]' where an index has it",
        )
        assert {case.verdict for case in report.cases} == {Verdict.NOT_RUN}

    @pytest.mark.parametrize("fixtures", [(), (RIGHT,)])
    def test_a_service_that_does_not_answer_is_named(self, fixtures: Sequence[Fixture]):
        async def judge(response: str) -> float:
            raise Unavailable("the judge at localhost:1 does not answer")

        report = only(make(judge, work="io", fixtures=fixtures))
        assert not report.passed
        assert report.needs == ("the judge at localhost:1 does not answer",)
        assert {case.verdict for case in report.cases} == {Verdict.NOT_RUN}

    @pytest.mark.parametrize(("gpus", "passed"), [(0, False), (1, True)])
    def test_gpu_work_without_a_gpu_is_not_run(
        self, monkeypatch: pytest.MonkeyPatch, gpus: int, passed: bool
    ):
        monkeypatch.setattr("guerdon.checking.examination.visible_gpus", lambda: gpus)
        report = only(make(exact, work="gpu"))
        assert report.passed is passed
        assert report.needs == (() if gpus else ("a GPU: none is visible here",))
        assert (named(report, "right").verdict is Verdict.PASS) is passed

    def test_hidden_gpus_do_not_count(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("glob.glob", lambda _: ["/dev/nvidia0"])
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert visible_gpus() == 0
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        assert visible_gpus() == 1

    def test_a_service_is_sent_no_megabyte(self):
        lengths: list[int] = []

        async def judge(response: str) -> float:
            lengths.append(len(response))
            return 1.0

        report = only(make(judge, work="io", fixtures=(RIGHT,)))
        assert report.passed
        assert named(report, "1 MB response").verdict is Verdict.NOT_RUN
        assert max(lengths) < 100


class TestOptions:
    @staticmethod
    def scaled(response: str, ground_truth: str, *, scale: float = 1.0) -> float:
        return scale * (response == ground_truth)

    def test_fixtures_speak_of_the_defaults_and_probes_of_the_options(self):
        report = only(make(self.scaled).bind(scale=0.5))
        assert report.passed
        assert report.options == {"scale": "0.5"}
        assert report.notes == ("the fixtures were run with the default options",)
        assert named(report, "right").got == "1"

    def test_options_that_break_the_range_fail(self):
        report = only(make(self.scaled).bind(scale=2.0))
        assert failed(report) == ["samples of its fixtures"]

    def test_tokens_are_not_shown(self):
        hidden = "http://:KEPT@127.0.0.1:9,http://user:KEPT@127.0.0.1:8/rm"
        reward = PoolingReward(hidden, model="rm", token="KEPT", retry={"attempts": 1})
        shown = only(reward).options
        assert shown["url"] == "'http://...@127.0.0.1:9,http://...@127.0.0.1:8/rm'"
        assert (shown["token"], shown["model"]) == ("'...'", "'rm'")
        assert "KEPT" not in f"{shown} {reward!r} {BaseReward.__repr__(reward)}"

    def test_an_option_equal_to_its_default_is_none(self):
        assert changed_options(make(self.scaled).bind(scale=1.0)) == {}
        assert changed_options(make(self.scaled).bind(scale=3.0)) == {"scale": 3.0}

    def test_a_class_that_needs_an_option_is_checked_as_it_is(self):
        class Needy(BaseReward):
            auto_register = False
            value_range = (0.0, 1.0)
            fixtures = (RIGHT,)

            def __init__(self, wanted: str) -> None:
                self.wanted = wanted

            def call(self, *, response: str) -> bool:
                return response == self.wanted

        assert only(Needy("4")).passed
        assert failed(only(Needy("5"))) == ["right"]


class TestCompositions:
    def test_leaves_come_first_then_the_whole(self):
        whole = WeightedSum(
            {
                "same": make(exact),
                "nested": WeightedSum({"first": make(first_letter, name="letter")}),
            },
            name="total",
        )
        reports = list(check(whole))
        assert [(r.path, r.reward) for r in reports] == [
            ("total/same", "checked"),
            ("total/nested/first", "letter"),
            ("total", "total"),
        ]
        assert [r.passed for r in reports] == [True, False, False]
        assert failed(reports[2]) == ["empty response"]

    def test_a_leaf_that_is_used_twice_is_checked_once(self):
        leaf = make(exact)
        reports = list(check(WeightedSum({"a": leaf, "b": leaf})))
        assert [r.path for r in reports] == ["weighted_sum/a", "weighted_sum"]


def test_what_is_always_there_is_not_taken_away():
    def everything(
        sample: Sample, metadata: object, extra_info: object, split: str, answer: str
    ) -> float:
        return float(answer == sample.response_text)

    cases = [case.case for case in only(make(everything)).cases]
    assert [case for case in cases if case.startswith("without")] == ["without answer"]


def test_metadata_columns_are_taken_away_too():
    def tagged(response: str, tags: list[str]) -> float:
        return float(len(tags))

    report = only(make(tagged, fixtures=(RIGHT,)))
    assert report.passed
    assert named(report, "without tags").got == "bad_input (data)"


def test_the_backend_is_the_one_that_is_asked_for():
    from guerdon.backends.inline import InlineBackend

    class Counting(InlineBackend):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def run(self, reward: Any, calls: Any, limits: Any) -> Any:
            self.calls += len(calls.arguments)
            return super().run(reward, calls, limits)

    backend = Counting()
    assert only(make(exact), backend=backend).passed
    assert backend.calls > 10
