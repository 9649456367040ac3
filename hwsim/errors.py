"""The exceptions hwsim raises on purpose.

HwsimError                    anything a user can mend; the command line prints it and exits with status 2
├── InputError                a file, field, option or value that is not understood
├── CapacityError             weights + KV cache + activations do not fit a memory
└── PlacementError            no unit of the device can do an op
InternalError                 a law of hwsim itself is broken (bytes lost, faster than the roof): a bug, never the user's
"""


class HwsimError(Exception):
    """Base of every error that a user can mend."""


class InputError(HwsimError):
    """A file, field, option or value is not understood; the message says which and what is accepted."""


class CapacityError(HwsimError):
    """What must be resident does not fit; the message names the memory and the excess."""


class PlacementError(HwsimError):
    """An op has no unit that can do it, or a policy named a unit that does not exist."""


class InternalError(Exception):
    """A conservation law failed inside hwsim: a defect of the simulator, please report it."""
