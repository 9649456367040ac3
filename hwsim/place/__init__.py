"""(ops, device) -> rows: which unit does each op, where its operands live, how devices divide the work."""

from hwsim.place.parallel import Plan, parallelize
from hwsim.place.policy import Policy, by_op_b, fastest, pinned, read_policy
from hwsim.place.rows import Row, place

__all__ = ["Plan", "Policy", "Row", "by_op_b", "fastest", "parallelize", "pinned", "place", "read_policy"]
