"""The training loop of the zoo; see `python -m train --help`."""

import os

# XLA:CPU prints long warnings about tuning flags when it reads a compiled program from the cache
# (jax 0.10.1). jaxlib reads this variable once, when it is loaded.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
