"""What a reward function can know of the TRL trainer that calls it.

TRL hands over `log_metric`, a method of the trainer, and through it says what it does not pass: how
large groups are, whether it evaluates, how many processes there are, and whether it adds up several
reward functions. Async GRPO hands over nothing of the kind. Contract: TRL 1.16,
`trl/trainer/grpo_trainer.py` and `rloo_trainer.py`.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Trainer(NamedTuple):
    """The trainer behind one call.

    Attributes:
        names: of its reward functions, whose values it adds; "" for models.
        evaluates: whether the call is of its evaluation.
        num_generations: size of the groups of this call; None where it is not known.
        processes: that call their reward functions together.
    """

    names: tuple[str, ...] = ()
    evaluates: bool = False
    num_generations: int | None = None
    processes: int = 1

    @property
    def others(self) -> bool:
        """Whether it has several reward functions."""
        return len(self.names) > 1


def behind(log_metric: Any) -> Trainer:
    """The trainer whose method this is; `Trainer()` for anything else.

    Example:
        >>> from types import MethodType, SimpleNamespace
        >>> model = SimpleNamespace(training=False)
        >>> found = SimpleNamespace(num_generations=8, num_generations_eval=2, model=model)
        >>> behind(MethodType(print, found))
        Trainer(names=(), evaluates=True, num_generations=2, processes=1)
    """
    trainer = getattr(log_metric, "__self__", None)
    if trainer is None:
        return Trainer()
    # What TRL itself asks: `mode = "train" if self.model.training else "eval"`.
    evaluates = not getattr(getattr(trainer, "model", None), "training", True)
    size = getattr(trainer, "num_generations_eval" if evaluates else "num_generations", None)
    return Trainer(
        names=tuple(getattr(f, "__name__", "") for f in getattr(trainer, "reward_funcs", ())),
        evaluates=evaluates,
        num_generations=size if isinstance(size, int) else None,
        processes=getattr(getattr(trainer, "accelerator", None), "num_processes", 1),
    )
