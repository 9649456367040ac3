from .catalogue import load_device, load_model
from .device import Device
from .engine import estimate, simulate
from .errors import HwsimError
from .job import Job, run
from .lowering.batch import decode, mixed, prefill
from .lowering.convnet import ConvNet
from .lowering.model import Model
from .lowering.transformer import lower
from .mixed import quantmcu
from .op import Op
from .placement import parallelize, place
from .reproduce import check
from .serving import Requests, Served, Service, read_trace, serve
from .trace import Trace

__all__ = [
    "ConvNet",
    "Device",
    "HwsimError",
    "Job",
    "Model",
    "Op",
    "Requests",
    "Served",
    "Service",
    "Trace",
    "check",
    "decode",
    "estimate",
    "load_device",
    "load_model",
    "lower",
    "mixed",
    "parallelize",
    "place",
    "prefill",
    "quantmcu",
    "read_trace",
    "run",
    "serve",
    "simulate",
]
