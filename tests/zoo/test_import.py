"""`import zoo` stands on jax, flax, numpy, chex and safetensors alone, and takes no time."""

import subprocess
import sys

HEAVY = ("tensorflow", "torch", "tensorflow_datasets", "optax", "matplotlib")

PROGRAM = f"""
import sys, time
for name in {HEAVY}:
    sys.modules[name] = None
start = time.process_time()
import zoo
print(time.process_time() - start)
import jax
zoo.create_model("lenet5_modern").init(jax.random.key(0), jax.numpy.zeros((1, 32, 32, 1)))
"""


def test_import():
    """Seconds of the processor, which what else the machine does leaves alone."""
    assert float(subprocess.check_output([sys.executable, "-c", PROGRAM], text=True)) < 2.0
