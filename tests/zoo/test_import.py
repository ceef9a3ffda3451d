"""`import zoo` stands on jax, flax, numpy, chex and safetensors alone, and takes no time."""

import subprocess
import sys

HEAVY = ("tensorflow", "torch", "tensorflow_datasets", "optax", "matplotlib")

PROGRAM = f"""
import sys, time
for name in {HEAVY}:
    sys.modules[name] = None
start = time.perf_counter()
import zoo
print(time.perf_counter() - start)
import jax
zoo.create_model("lenet5_modern").init(jax.random.key(0), jax.numpy.zeros((1, 32, 32, 1)))
"""


def seconds() -> float:
    return float(subprocess.check_output([sys.executable, "-c", PROGRAM], text=True))


def test_import():
    assert any(seconds() < 2.0 for _ in range(3)), "a busy machine has three tries"
