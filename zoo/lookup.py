"""Lookup of names in tables, with suggestions for unknown names."""

import difflib
from collections.abc import Mapping
from typing import Any


def lookup(table: Mapping[str, Any], name: str, *, kind: str) -> Any:
    """Returns `table[name]`, or raises a ValueError that suggests the nearest names.

    Args:
        table: the table.
        name: the name.
        kind: what the names denote, for the message.

    Returns:
        The entry.

    Raises:
        ValueError: if the name is unknown.

    >>> lookup({"relu": 1, "tanh": 2}, "tanh", kind="activation")
    2
    >>> lookup({"relu": 1, "tanh": 2}, "rely", kind="activation")
    Traceback (most recent call last):
    ValueError: unknown activation 'rely': did you mean relu?
    """
    if isinstance(name, str) and name in table:
        return table[name]
    matches = difflib.get_close_matches(str(name), table, n=3, cutoff=0.5)
    hint = (
        f"did you mean {' or '.join(matches)}?"
        if matches
        else f"expected {', '.join(sorted(table))}"
    )
    raise ValueError(f"unknown {kind} {name!r}: {hint}")
