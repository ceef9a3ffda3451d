"""The one training loop of the zoo: `python -m train --help`."""

import os

# Reading a program that it kept, XLA:CPU misses its own tuning flags in the processor and says so
# at length (jax 0.10.1). jaxlib looks here once, when it is loaded, so nothing later would help.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
