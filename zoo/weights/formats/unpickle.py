"""Pickles as data: a machine that builds plain containers and nothing else.

Python's unpickler imports and calls what a file names. Even if that is prevented, a file can make
it allocate a memo of 2**31 entries or hash tuples nested a million deep. Here the standard library
only decodes the opcodes; this module defines their effect.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

MAX_OPCODES = 2_000_000  # torch uses about 30 per tensor
MAX_KEY_LENGTH = 256  # characters of a dictionary key
MAX_INT = 2**60  # hashes of larger ints can be made to collide

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY_CONTAINERS = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
STRING_OPCODES = "STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8"
BYTES_OPCODES = "BINBYTES SHORT_BINBYTES BINBYTES8"
NUMBER_OPCODES = "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT"
ARGUMENT_OPCODES = {
    *STRING_OPCODES.split(),
    *BYTES_OPCODES.split(),
    *NUMBER_OPCODES.split(),
}  # these push their argument


class Global(NamedTuple):
    """A name that the file asks to import; it is never imported."""

    name: str


def extend_container(container: Any, items: list, *, pairs: bool) -> None:
    """Appends `items` to a list, or sets them as key, value, ... in a dictionary."""
    if not pairs and isinstance(container, list):
        container.extend(items)
    elif pairs and isinstance(container, dict):
        for key, value in zip(items[::2], items[1::2], strict=True):
            text = isinstance(key, str) and len(key) <= MAX_KEY_LENGTH
            if not text and not (isinstance(key, int) and abs(key) < MAX_INT):
                raise ValueError("a dictionary's key that is neither short text nor a number")
            container[key] = value
    else:
        raise ValueError(f"refused: it puts items into a {type(container).__name__}")


class PickleMachine:
    """Stack, marks and memo of a pickle, with a method for each opcode that does more than push."""

    def __init__(self, known: Mapping[str, Callable | None], persistent: Callable | None):
        self.known, self.persistent = known, persistent
        self.stack, self.marks, self.memo = [], [], {}

    def items(self) -> list:
        """Returns the items since the last mark."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def find(self, name: str) -> Global:
        """Resolves a name that the file asks for; raises ValueError unless it is known."""
        if name not in self.known:
            shown = repr(name[:200].replace(" ", "."))[1:-1]
            raise ValueError(
                f"refused: it names {shown}, which is neither a tensor nor a plain container; "
                "save the state_dict alone"
            )
        return Global(name)

    def call(self) -> Any:
        """Calls a known function."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not Global or type(arguments) is not tuple:
            raise ValueError(f"refused: it calls a {type(function).__name__}")
        build = self.known[function.name]
        if build is None:
            raise ValueError(f"refused: it calls {function.name.replace(' ', '.')}")
        return build(*arguments)

    def step(self, name: str, argument: Any) -> None:
        """Executes one opcode."""
        stack = self.stack
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self.marks.append(stack)
                self.stack = []
            case "POP":
                stack.pop() if stack else self.items()
            case "POP_MARK":
                self.items()
            case "DUP":
                stack.append(stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "TUPLE" | "LIST":
                items = self.items()
                self.stack.append(tuple(items) if name == "TUPLE" else items)
            case "DICT":
                items, container = self.items(), {}
                extend_container(container, items, pairs=True)
                self.stack.append(container)
            case "APPEND":
                item = stack.pop()
                extend_container(stack[-1], [item], pairs=False)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                extend_container(stack[-1], [key, value], pairs=True)
            case "APPENDS" | "SETITEMS":
                items = self.items()
                extend_container(self.stack[-1], items, pairs=name == "SETITEMS")
            case "GLOBAL":
                stack.append(self.find(argument))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(self.find(module + " " + name))
            case "INST":
                self.find(argument)
                raise ValueError(f"refused: it makes an instance of {argument.replace(' ', '.')}")
            case "REDUCE":
                stack.append(self.call())
            case "BUILD":  # attributes that state_dict() hangs on its OrderedDict: not read
                stack.pop()
                if type(stack[-1]) is not dict:
                    raise ValueError(f"refused: it sets a {type(stack[-1]).__name__}'s attributes")
            case "BINPERSID" if self.persistent is not None:
                stack.append(self.persistent(stack.pop()))
            case _:
                raise ValueError(f"refused: it holds the pickle opcode {name}")


def read_pickle(
    stream: Any,
    *,
    known: Mapping[str, Callable | None],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """Reads the pickle at the current position of a file and leaves the file behind it.

    It builds None, numbers, strings, bytes, lists, tuples and dictionaries, and never imports or
    calls what the file names.

    Args:
        stream: open binary file or mmap.
        known: replacements of names, {"module name": function}; None for a name that must not be
            called.
        persistent: resolves the identifiers of external objects.

    Returns:
        The content.

    Raises:
        ValueError: if the pickle needs anything else; the message names it.

    Source: the opcodes as the standard library's pickletools describes them.

    >>> import io, pickle
    >>> read_pickle(io.BytesIO(pickle.dumps({"epoch": 3})), known={})
    {'epoch': 3}
    >>> read_pickle(io.BytesIO(pickle.dumps(eval)), known={})
    Traceback (most recent call last):
    ValueError: refused: it names builtins.eval, which is neither a tensor nor a plain ...
    """
    machine = PickleMachine(known, persistent)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            name = opcode.name
            if count >= MAX_OPCODES:
                raise ValueError(f"its pickle is longer than {MAX_OPCODES:,} steps")
            if name == "STOP":
                return machine.stack.pop()
            if name in ARGUMENT_OPCODES:
                machine.stack.append(argument)
            elif name in CONSTANTS:
                machine.stack.append(CONSTANTS[name])
            elif name in EMPTY_CONTAINERS:
                machine.stack.append(EMPTY_CONTAINERS[name]())
            elif name in TUPLES:
                items = [machine.stack.pop() for _ in range(TUPLES[name])]
                machine.stack.append(tuple(reversed(items)))
            else:
                machine.step(name, argument)
    except (IndexError, KeyError, TypeError) as error:
        raise ValueError(f"a damaged pickle ({type(error).__name__}: {error})"[:200]) from error
    raise ValueError("its pickle is cut short")
