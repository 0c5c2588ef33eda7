"""Rewards made of rewards.

    WeightedSum({"correct": Child("gsm8k", 0.9), "format": Child("format", 0.1)})

A composition is a reward. A child without a score never turns into a number unless the child's
`missing` says so, and then the score says so too. One noun per module: `child` (what `missing`
means), `row` (which outcome wins), `ranges` (interval arithmetic), and one for each kind of
composition.
"""

from guerdon.compose.arithmetic import Affine, Clip, Maximum, Minimum, Product, WeightedSum
from guerdon.compose.child import Child, Missing, Value
from guerdon.compose.composition import Composition
from guerdon.compose.condition import Condition
from guerdon.compose.curve import Curve, linear, piecewise
from guerdon.compose.flow import Cascade, Gate
from guerdon.compose.groups import GroupNormalise
from guerdon.compose.routing import Conditional, Schedule

__all__ = [
    "Affine",
    "Cascade",
    "Child",
    "Clip",
    "Composition",
    "Condition",
    "Conditional",
    "Curve",
    "Gate",
    "GroupNormalise",
    "Maximum",
    "Minimum",
    "Missing",
    "Product",
    "Schedule",
    "Value",
    "WeightedSum",
    "linear",
    "piecewise",
]
