"""Formatting of exceptions."""


def one_line(error: BaseException) -> str:
    r"""Formats an exception as one line: its type, and its message with whitespace collapsed.

    Args:
        error: the exception.

    Returns:
        `TypeName: message`.

    >>> one_line(ValueError("first\n  second"))
    'ValueError: first second'
    """
    return " ".join(f"{type(error).__name__}: {error}".split())
