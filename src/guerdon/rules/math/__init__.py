"""Mathematical equivalence with a gold answer: Math-Verify's verdict behind an exact fast path."""

from guerdon.rules.math.mathverify import MathVerify, math_verify, verify

__all__ = ["MathVerify", "math_verify", "verify"]
