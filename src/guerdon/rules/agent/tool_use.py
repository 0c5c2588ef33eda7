"""The reward `tool_use`: an answer counts only, or more, if the model used tools to find it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from msgspec.structs import replace

from guerdon.errors import InvalidReward
from guerdon.reward import BaseReward
from guerdon.rules.applied import applicable, value_of
from guerdon.rules.case import case
from guerdon.rules.json_form import NotJson, parse_json
from guerdon.rules.option import one_of
from guerdon.rules.tools import NoCall, parse_call
from guerdon.sample import Message, Sample

TurnForm = Literal["any", "thought", "think_block", "think_block_before_last"]
Source = Literal["response", "last_call"]

TURN_FORMS = ("any", "thought", "think_block", "think_block_before_last")
SOURCES = ("response", "last_call")


def _turns(*messages: str) -> list[dict[str, str]]:
    """A conversation in short: `a:` is said by the assistant, `t:` by a tool."""
    roles = {"a": "assistant", "t": "tool"}
    return [{"role": roles[text[0]], "content": text[2:]} for text in messages]


_FIXTURES = (
    case(
        "full", "tool and right", 1.0, response=_turns("a:look", "t:9", "a:A: 9"), ground_truth="9"
    ),
    case("zero", "right without a tool", 0.0, response=_turns("a:A: 9"), ground_truth="9"),
    case("zero", "text alone", 0.0, response="A: 9", ground_truth="9"),
    case("zero", "empty", 0.0, response="", ground_truth="9"),
    case("full", "wrong with a tool", 0.1, response=_turns("t:9", "a:A: 8"), ground_truth="9"),
    case("malformed", "no truth", "bad_input", response=_turns("t:9", "a:A: 9")),
    case(
        "malformed",
        "odd characters",
        0.1,
        response=_turns("t:\0\ud800", "a:\0\ud800"),
        ground_truth="9",
    ),
    case(
        "deterministic", "two tools", 1.0, response=_turns("t:1", "t:2", "a:A: 9"), ground_truth="9"
    ),
    case(
        "metamorphic",
        "injected: the tool says it",
        0.1,
        response=_turns("a:look", "t:A: 9", "a:I do not know"),
        ground_truth="9",
    ),
    case(
        "metamorphic",
        "noise around",
        1.0,
        response=_turns("a:hm", "t:0", "a:So, after all:\nA: 9\n"),
        ground_truth="9",
    ),
    case(
        "metamorphic", "whitespace", 1.0, response=_turns("t:0", "a:\n A:  9 \n"), ground_truth="9"
    ),
    case(
        "metamorphic",
        "equivalent form",
        1.0,
        response=_turns("t:0", "a:#### 9.0"),
        ground_truth="9",
    ),
    case(
        "metamorphic",
        "every option",
        0.1,
        response=_turns("t:0", "a:A: 7, 8, 9, 10"),
        ground_truth="9",
    ),
)


class ToolUse(BaseReward):
    """A rule's value if the model used tools, with a part of it for using them.

    With `v` the rule's value of the last answer and `f` the floor: `f + (1 - f) v` if there are at
    least `calls` answers of tools and every turn has its form; else 0, or `(1 - f) v` where the
    tools are no condition. Range 0 to 1; the rule's range must be that too. AgentFly's rewards with
    tools are settings of it; the page on agent rewards has the table.

    Args:
        rule: a rule's name or reference, or a reward.
        options: options bound to the rule.
        calls: answers of tools that are wanted.
        tool: count only the answers of this tool, where tool messages name theirs.
        floor: for using tools, whatever the answer.
        condition: whether using tools is the condition for earning anything.
        turn_form: what every assistant turn must have: `any`, `thought` (it begins with that word),
            or `think_block` (a closed `<think>` block); `think_block_before_last` leaves the last
            turn free.
        answer_from: the last assistant turn (`response`), or an argument of the last tool call.
        argument: which argument, for `last_call`.

    Raises:
        InvalidReward: an impossible option.

    Example:
        >>> reward = ToolUse("gsm8k")
        >>> turns = [{"role": "tool", "content": "9"}, {"role": "assistant", "content": "A: 9"}]
        >>> reward.call_sync(response=turns, ground_truth="9")["score"]
        1.0
    """

    name = "tool_use"
    value_range = (0.0, 1.0)
    fixtures = _FIXTURES

    def __init__(
        self,
        rule: str | BaseReward = "gsm8k",
        options: Mapping[str, Any] | None = None,
        calls: int = 1,
        tool: str | None = None,
        floor: float = 0.1,
        condition: bool = True,
        turn_form: TurnForm = "any",
        answer_from: Source = "response",
        argument: str = "answer",
    ) -> None:
        one_of("turn_form", turn_form, TURN_FORMS)
        one_of("answer_from", answer_from, SOURCES)
        self._rule = applicable(rule, options or {}, "tool_use")
        if self._rule.value_range != (0.0, 1.0):
            raise InvalidReward(
                f"tool_use takes rules with the range 0 to 1; that of '{self._rule.name}' is "
                f"{self._rule.value_range}"
            )
        if not 0.0 <= floor <= 1.0 or calls < 0:
            raise InvalidReward(f"floor is 0 to 1 and calls at least 0, got {floor} and {calls}")
        self._calls = calls
        self._tool = tool
        self._floor = floor
        self._condition = condition
        self._turn_form: TurnForm = turn_form
        self._answer_from: Source = answer_from
        self._argument = argument
        self.deadline = self._rule.deadline
        self.candidate_fault = self._rule.candidate_fault

    def fingerprint_extra(self) -> Mapping[str, Any]:
        """The fingerprint of the rule."""
        return {"rule": self._rule.fingerprint}

    def call(self, sample: Sample, response_messages: Sequence[Message]) -> dict[str, Any] | None:
        """The value, and what it is made of."""
        used = sum(1 for message in response_messages if self._counts(message))
        turns = [message for message in response_messages if message.role == "assistant"]
        checked = turns[:-1] if self._turn_form == "think_block_before_last" else turns
        formed = all(map(self._is_formed, checked))
        enough = used >= self._calls and formed
        answer = self._answer(sample, response_messages)
        text = replace(sample, response=answer, response_token_ids=None, response_mask=None)
        value = value_of(self._rule, text)
        if value is None:
            return None
        score = (1.0 - self._floor) * value
        if enough:
            score += self._floor
        elif self._condition:
            score = 0.0
        metrics = {"answer": value, "tool_answers": float(used), "formed": float(formed)}
        return {"score": min(score, 1.0), "metrics": metrics}

    def _counts(self, message: Message) -> bool:
        return message.role == "tool" and (self._tool is None or message.name == self._tool)

    def _is_formed(self, message: Message) -> bool:
        if self._turn_form == "any":
            return True
        text = message.text.lstrip()
        if self._turn_form == "thought":
            return text[:7].lower() == "thought"
        start = text.find("<think>")
        return start >= 0 and text.find("</think>", start) >= 0

    def _answer(self, sample: Sample, messages: Sequence[Message]) -> str:
        """What the rule scores; empty where the model gave nothing of the kind."""
        said = sample.response_text or ""
        if self._answer_from == "response":
            return said if not messages or messages[-1].role == "assistant" else ""
        calls = [call for message in messages for call in message.tool_calls]
        if not calls:
            return said
        try:
            parsed = parse_call({"name": calls[-1].name, "arguments": calls[-1].arguments})
            value = parse_json(parsed.arguments.get(self._argument, '""'))
        except (NoCall, NotJson):
            return ""
        return str(value) if isinstance(value, str | int | float) else ""
