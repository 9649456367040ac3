"""rows -> Trace (events) or arrays (closed form): two roads over the same prices."""

from hwsim.engine.estimate import Estimate, estimate
from hwsim.engine.simulate import simulate

__all__ = ["Estimate", "estimate", "simulate"]
