"""One way to look a name up in a table, and one sentence for a name that is not there."""

import difflib
from collections.abc import Mapping
from typing import Any


def lookup(table: Mapping[str, Any], name: str, *, kind: str) -> Any:
    """`table[name]`; a ValueError that offers the nearest names where `table` lacks it.

    >>> lookup({"relu": 1, "tanh": 2}, "tanh", kind="activation")
    2
    >>> lookup({"relu": 1, "tanh": 2}, "rely", kind="activation")
    Traceback (most recent call last):
    ValueError: unknown activation 'rely': did you mean relu?
    """
    if isinstance(name, str) and name in table:
        return table[name]
    near = difflib.get_close_matches(str(name), table, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"expected {', '.join(sorted(table))}"
    raise ValueError(f"unknown {kind} {name!r}: {hint}")
