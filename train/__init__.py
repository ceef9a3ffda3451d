"""The one training loop of the zoo: `python -m train --help`."""
