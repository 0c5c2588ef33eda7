"""What a tiny checkpoint gives in transformers, without anything of Guerdon."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from guerdon.models.scalar import ScalarRewardModel  # noqa: E402
from guerdon.outcomes import Outcomes  # noqa: E402
from guerdon.policy import Policy  # noqa: E402
from guerdon.sample import Sample  # noqa: E402
from guerdon.service import RewardService  # noqa: E402

Tiny = Callable[..., str]
FAMILIES = ("qwen2", "llama", "mistral")
CLOSE = 1e-5
PROMPTS = ("What is two plus two?", "Name a colour of the sky and say why it is that colour.")
RESPONSES = (
    "Four.",
    "The answer is four, because two and two are four.",
    "",
    "Blue: the air scatters short waves more than long ones. " * 6,
    "Four.",
)


def samples() -> list[Sample]:
    """Two groups with responses of very different lengths, mixed."""
    made = [
        Sample(prompt=prompt, response=response, group_id=str(group))
        for group, prompt in enumerate(PROMPTS)
        for response in RESPONSES
    ]
    return made[::2] + made[1::2]


def score(reward: ScalarRewardModel, batch: list[Sample], mask: bool = False) -> Outcomes:
    on = dict.fromkeys(("scorer", "data", "candidate", "infrastructure"), "mask")
    with RewardService(reward, policy=Policy(on=on) if mask else None) as service:
        return service.score_sync(batch)


def plain_ids(folder: str, batch: list[Sample]) -> list[list[int]]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return [
        tokenizer.apply_chat_template(
            [
                {"role": "user", "content": sample.prompt},
                {"role": "assistant", "content": sample.response},
            ],
            return_dict=False,
        )
        for sample in batch
    ]


def plain_scores(folder: str, auto: str, batch: list[Sample]) -> list[float]:
    """Each sample alone, through the class of transformers."""
    model = getattr(transformers, auto).from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = [model(torch.tensor([ids])).logits for ids in plain_ids(folder, batch)]
    return [float(found.flatten()[-1]) for found in logits]


def close_to(values: Any, expected: list[float], tolerance: float = CLOSE) -> bool:
    return max(abs(a - b) for a, b in zip(values.tolist(), expected, strict=True)) <= tolerance


def copied(folder: str, to: Path) -> str:
    return str(shutil.copytree(folder, to / "model"))


def edit(folder: str, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    file = Path(folder) / name
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def configured(folder: str, **changes: Any) -> None:
    edit(folder, "config.json", lambda content: content.update(changes))
