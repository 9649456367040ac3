"""(ops, device) -> rows: which unit does each op, where its operands live, how devices divide the work."""

from hwsim.placement.parallel import Plan, parallelize
from hwsim.placement.policy import Policy, Speculation, fastest, op_b, pin, read_policy
from hwsim.placement.rows import Row, place

__all__ = ["Plan", "Policy", "Row", "Speculation", "fastest", "op_b", "parallelize", "pin", "place", "read_policy"]
