"""`hwsim measure`: a short benchmark with PyTorch on the user's own machine, written as the tables that the readers know.

grid.py says which shapes, calls.py makes the calls, clock.py times them, power.py reads the meter, run.py writes the files. Only
calls.py and clock.py import PyTorch at their head: they are imported once it is known to be there.
"""
