"""(op, unit) -> seconds, bytes, joules: one physics per file, plain array arithmetic, so everything broadcasts."""

from hwsim.cost.physics import physics, price
from hwsim.cost.power import energy
from hwsim.cost.terms import Cost

__all__ = ["Cost", "energy", "physics", "price"]
