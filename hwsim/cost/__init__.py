"""(op, unit) -> seconds, bytes, joules: one physics per file, plain array arithmetic, so everything broadcasts."""

from hwsim.cost.price import price
from hwsim.cost.terms import Cost

__all__ = ["Cost", "price"]
