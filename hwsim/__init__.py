"""hwsim: simulate LLM, MoE, convolutional and spiking networks on hardware accelerators. See hwsim/README.md for the journey.

The names below are loaded when first used, so that `hwsim --help` costs no NumPy; `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
