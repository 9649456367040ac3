"""Networks of 64-port switches (table 3) and what their bandwidth allows a decoding step of experts (section 2.3.2).

fat tree of two layers      k^2/2 endpoints, 3k/2 switches, k^2/2 links between switches; of three: k^3/4, 5k^2/4, k^3/2
planes                      as many fat trees side by side (multi-plane)
Slim Fly (q)                2 q^2 switches of network degree 3q/2, half as many endpoints each
Dragonfly (p, a, h, g)      g groups of a switches, all joined inside, p endpoints and h links to other groups each
cost                        switches x price of one + links between switches x price of one
"""

from __future__ import annotations

from hwsim.catalogue import load_model
from hwsim.claim import Run
from hwsim.cost.link import transfer
from hwsim.device import Link, Memory
from hwsim.lowering.model import MixtureOfExperts
from hwsim.op import Move


def communication_s(run: Run) -> float:
    """Seconds in which a device sends its tokens to all their experts and gets the results back, latency left out."""
    return _sent(run, float(run.args["dispatch"])) + _sent(run, float(run.args["combine"]))


def layer_s(run: Run) -> float:
    """Two micro-batches, whose arithmetic hides behind one another's communication."""
    return 2.0 * communication_s(run)


def step_s(run: Run) -> float:
    """A token on every device: all layers."""
    return load_model(run.model).num_layers * layer_s(run)


def steps_per_s(run: Run) -> float:
    """Tokens/s of one request."""
    return 1.0 / step_s(run)


def speculated(run: Run) -> float:
    """Tokens of a step that also guesses the next one, accepted with probability `args.accepted`."""
    return 1.0 + float(run.args["accepted"])


def endpoints(run: Run) -> float:
    """Ports for devices."""
    return _counts(run)[0]


def switches(run: Run) -> float:
    """Switches."""
    return _counts(run)[1]


def links(run: Run) -> float:
    """Cables between switches."""
    return _counts(run)[2]


def cost(run: Run) -> float:
    """Dollars."""
    return switches(run) * float(run.args["switch"]) + links(run) * float(run.args["cable"])


def cost_per_endpoint(run: Run) -> float:
    """Dollars for each port."""
    return cost(run) / endpoints(run)


def _sent(run: Run, width: float) -> float:
    """Seconds for every token's row, in `width` bytes an element, to each of its experts, the shared one too."""
    moe = next(
        layer.feed_forward for layer, _ in load_model(run.model).layers if isinstance(layer.feed_forward, MixtureOfExperts)
    )
    copies = moe.top_k + (moe.shared is not None)
    size = float(run.batch) * copies * float(run.args["hidden"]) * width
    memory = Memory(capacity=1e12, bandwidth=1e15)
    link = Link(bandwidth=float(run.args["bandwidth"]), latency=0.0, reach=2, memory="hbm")
    move = Move(name="experts", kind="all_to_all", message=size, sent=size, hops=1.0, ranks=2, span=2)
    return float(transfer(move, "network", link, memory).alone_s)


def _counts(run: Run) -> tuple[float, float, float]:
    k = float(run.args.get("ports", 64))
    kind = run.args["topology"]
    if kind == "fat tree 2":
        planes = float(run.args.get("planes", 1))
        return planes * k**2 / 2, planes * 3 * k / 2, planes * k**2 / 2
    if kind == "fat tree 3":
        return k**3 / 4, 5 * k**2 / 4, k**3 / 2
    if kind == "slim fly":
        q = float(run.args["q"])
        many, degree = 2 * q**2, 3 * q / 2
        return many * degree / 2, many, many * degree / 2
    p, a, h, g = (float(run.args[name]) for name in ("p", "a", "h", "groups"))
    return p * a * g, a * g, g * a * (a - 1) / 2 + g * a * h / 2
