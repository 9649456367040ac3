"""Tables of element-wise kernels, norms and softmax. A set stands for a software stack and kind of kernel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from hwsim.fit.group import Group, floats, split
from hwsim.kernels.vector import OPERATIONS

_AS = {"add": "sum", "mul": "sum", "div": "sum", "relu": "scale", "ln": "norm"}  # others go by their own name
_UNARY = ("copy", "relu", "gelu", "tanh", "ln", "softmax")
_KINDS = {"ln": "pytorch-norm", "softmax": "pytorch-softmax"}


def vector_ops_fp32(table: pd.DataFrame) -> Iterator[Group]:
    """Eager PyTorch: a tensor read (two where two are combined), one written; launches are the host's."""
    ops = table["op"].astype(str)
    stack = [_KINDS.get(op, "pytorch-elementwise") for op in ops]
    for (gpu, name), rows in split(table.assign(op=ops, stack=stack), "device", "stack"):
        elements = floats(rows["rows"]) * floats(rows["cols"])
        unary = rows["op"].isin(_UNARY) | rows["op"].str.endswith("scalar")
        arguments = {
            "bytes": 4.0 * elements * np.where(unary, 2.0, 3.0),
            "ops": elements * np.array([OPERATIONS[_AS.get(word, word)] for word in rows["op"].str.split("_").str[0]]),
            "rows": floats(rows["rows"]) * rows["op"].isin(_KINDS).to_numpy(),
        }
        yield Group(
            "vector_ops_fp32", gpu, "vector", name, "fp32", floats(rows["latency_s"]), arguments, "fp32", "fp32",
            label=rows["cols"].astype(str).to_numpy(dtype=object),
        )  # fmt: skip
