"""Torch checkpoints without torch: the zip format and the older pickle format.

A checkpoint is a program for the unpickler. Here nothing in it is executed; see
`zoo.weights.formats.unpickle`.
"""

import io
import math
import mmap
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from zoo.weights.formats.archive import open_archive
from zoo.weights.formats.unpickle import MAX_KEY_LENGTH, Global, read_pickle

MAGIC = 0x1950A86A20F9469CFC6C  # start of the pickle format
PROTOCOL = 1001
MAX_RANK = 16
MAX_COPIES = 4  # largest ratio of tensor bytes to file bytes, for shared storage
MAX_DEPTH = 8  # nesting of dictionaries
WRAPPERS = ("state_dict", "model", "model_state_dict", "model_state", "net", "network", "params")
PREFIXES = ("module.", "_orig_mod.")  # added by DataParallel and torch.compile

# torch's names of storages and dtypes
STORAGES = dict(
    FloatStorage="<f4", DoubleStorage="<f8", HalfStorage="<f2", BFloat16Storage=jnp.bfloat16,
    LongStorage="<i8", IntStorage="<i4", ShortStorage="<i2", CharStorage="<i1", ByteStorage="<u1",
    BoolStorage="?",
)  # fmt: skip
DTYPES = dict(
    float32="<f4", float64="<f8", float16="<f2", bfloat16=jnp.bfloat16,
    int64="<i8", int32="<i4", int16="<i2", int8="<i1", uint8="<u1", bool="?",
    uint16="<u2", uint32="<u4", uint64="<u8",
)  # fmt: skip
STORAGE_TYPES = {
    **{f"torch {name}": np.dtype(dtype) for name, dtype in STORAGES.items()},
    **{f"torch.cuda {name}": np.dtype(dtype) for name, dtype in STORAGES.items()},
    "torch.storage UntypedStorage": np.dtype("u1"),
}


class Storage(NamedTuple):
    """A run of `size` numbers in the file that has not been read."""

    key: str
    dtype: np.dtype
    size: int


class Tensor(NamedTuple):
    """A strided view of a storage, in numbers, that has not been read."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def is_plain_int(value: Any) -> bool:
    """Returns whether a value is an int in a safe range and not a bool."""
    return type(value) is int and 0 <= value < 2**63


def rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Tensor:
    """Replaces torch._utils._rebuild_tensor, _v2 and _v3."""
    names = [value.name for value in rest if isinstance(value, Global)]
    dtype = DTYPES.get(names[0].removeprefix("torch ")) if names else None
    sizes = [*shape, *strides] if isinstance(shape, tuple) and isinstance(strides, tuple) else [-1]
    if (
        not isinstance(storage, Storage)
        or not all(is_plain_int(size) for size in [offset, *sizes])
        or not len(shape) == len(strides) <= MAX_RANK
    ):
        raise ValueError("a tensor whose storage, offset, shape or strides are none")
    dtype = storage.dtype if dtype is None else np.dtype(dtype)
    tensor = Tensor(storage, dtype, offset, shape, strides)
    count = storage.size * storage.dtype.itemsize // dtype.itemsize
    numbers = 1
    for size in shape:
        numbers *= size
    reach = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if numbers > count or (numbers and reach >= count):
        raise ValueError(
            f"a tensor of shape {shape}, strides {strides} and offset {offset} reaches outside its "
            f"storage of {count} numbers"
        )
    return tensor


def rebuild_mapping(pairs: list | None = None) -> dict:
    """Replaces collections.OrderedDict; Python 2 wrote its pairs as a list of lists.

    The list is emptied, so a file cannot have it copied many times.
    """
    mapping = {}
    for key, value in pairs or []:
        if type(key) is not str:
            raise ValueError("an ordered dictionary with a key that is no text")
        mapping[key] = value
    if pairs:
        pairs.clear()
    return mapping


ALLOWED_GLOBALS: dict[str, Callable | None] = {
    "collections OrderedDict": rebuild_mapping,
    "torch._utils _rebuild_tensor": rebuild_tensor,
    "torch._utils _rebuild_tensor_v2": rebuild_tensor,
    "torch._utils _rebuild_tensor_v3": rebuild_tensor,
    "torch._utils _rebuild_parameter": lambda data, requires_grad, hooks: data,
    "torch Size": lambda shape: shape,
    "torch device": lambda *arguments: None,
    **dict.fromkeys(STORAGE_TYPES),
    **{f"torch {name}": None for name in DTYPES},
}


def persistent_storage(identifier: Any) -> Storage:
    """Resolves a persistent identifier ("storage", type, key, device, size, view)."""
    if not isinstance(identifier, tuple) or not 5 <= len(identifier) <= 6:
        raise ValueError("an outer object that is no storage")
    word, kind, key, _, size = identifier[:5]
    if word != "storage" or not isinstance(kind, Global) or kind.name not in STORAGE_TYPES:
        raise ValueError("an outer object that is no storage of numbers, but a model's own code")
    if not isinstance(key, str) or not is_plain_int(size):
        raise ValueError("a storage whose key or size is none")
    if identifier[5:] not in ((), (None,)):
        raise ValueError("a storage that is a view of another, as torch before 0.4 wrote them")
    return Storage(key, STORAGE_TYPES[kind.name], size)


def walk_tensors(
    content: dict, path: tuple[str, ...], visited: set[int]
) -> Iterator[tuple[str, Tensor]]:
    """Yields every tensor in nested dictionaries with its dotted name, each dictionary once."""
    visited.add(id(content))
    for key, value in content.items():
        names = (*path, str(key))
        if isinstance(value, Tensor):
            name = ".".join(names)
            if len(name) > MAX_KEY_LENGTH:
                raise ValueError(f"a tensor's name of {len(name)} characters")
            yield name, value
        elif isinstance(value, dict) and id(value) not in visited:
            if len(names) > MAX_DEPTH:
                raise ValueError(f"dictionaries nested more than {MAX_DEPTH} deep")
            yield from walk_tensors(value, names, visited)


def flatten_tensors(content: dict) -> dict[str, Tensor]:
    """Flattens nested dictionaries to tensors by dotted name."""
    pairs = list(walk_tensors(content, (), set()))
    tensors = dict(pairs)
    if len(tensors) < len(pairs):
        raise ValueError(f"{len(pairs) - len(tensors)} of its tensors have another one's name")
    return tensors


def find_state_dict(content: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors of a checkpoint and the plain values beside them."""
    if type(content) is not dict:
        raise ValueError(f"holds a {type(content).__name__}, not a dictionary of tensors")
    values = {
        key: value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, str | int | float)
    }
    for _ in range(MAX_DEPTH):
        inner = [content[word] for word in WRAPPERS if isinstance(content.get(word), dict)]
        inner = [one for one in inner if flatten_tensors(one)]
        if not inner or any(isinstance(value, Tensor) for value in content.values()):
            break
        content = inner[0]
    tensors = flatten_tensors(content)
    if not tensors:
        raise ValueError("holds no tensor")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): one for name, one in tensors.items()}
    return tensors, values


def to_arrays(
    tensors: dict[str, Tensor], read: Callable[[Storage], bytes], *, size: int
) -> dict[str, np.ndarray]:
    """Converts tensors to read-only arrays that are views of their storages' bytes."""
    counts = {name: math.prod(one.shape) for name, one in tensors.items()}
    claimed = sum(counts[name] * one.dtype.itemsize for name, one in tensors.items())
    if claimed > MAX_COPIES * size:
        raise ValueError(f"its tensors claim {claimed:,} bytes in a file of {size:,}")
    arrays, storages = {}, {}
    for name, one in tensors.items():
        if not counts[name]:
            arrays[name] = np.frombuffer(b"", one.dtype).reshape(one.shape)
            continue
        if one.storage not in storages:
            storages[one.storage] = read(one.storage)
        raw, step = storages[one.storage], one.dtype.itemsize
        numbers = np.frombuffer(raw, one.dtype, count=len(raw) // step)[one.offset :]
        arrays[name] = np.lib.stride_tricks.as_strided(
            numbers, one.shape, [stride * step for stride in one.strides], writeable=False
        )
    return arrays


def read_zip(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the zip format."""
    with open_archive(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        programs = [name for name in entries if f"/{name}".endswith("/data.pkl")]
        if not programs:
            raise ValueError("a zip archive without data.pkl")
        root = min(programs, key=len).removesuffix("data.pkl")
        order = f"{root}byteorder"
        if order in entries and archive.read(order) != b"little":
            raise ValueError("its numbers are big-endian; save it on a little-endian machine")
        program = io.BytesIO(archive.read(f"{root}data.pkl"))
        tensors, values = find_state_dict(
            read_pickle(program, known=ALLOWED_GLOBALS, persistent=persistent_storage)
        )

        def stored(one: Storage) -> bytes:
            entry = entries.get(f"{root}data/{one.key}")
            claimed = one.size * one.dtype.itemsize
            if entry is None or entry.file_size != claimed:
                actual = 0 if entry is None else entry.file_size
                raise ValueError(f"holds {actual:,} bytes for a storage that claims {claimed:,}")
            return archive.read(entry)

        return to_arrays(tensors, stored, size=os.path.getsize(path)), values


def index_storages(file: mmap.mmap, sizes: dict[str, Storage]) -> dict[str, tuple[int, int]]:
    """Returns the byte range of each storage in the pickle format."""
    ranges = {}
    keys = read_pickle(file, known={})
    for key in keys if isinstance(keys, list) else []:
        one = sizes.get(key) if isinstance(key, str) else None
        if one is None or one.size != int.from_bytes(file.read(8), "little"):
            raise ValueError("its list of storages differs from what its tensors claim")
        start, stop = file.tell(), file.tell() + one.size * one.dtype.itemsize
        if stop > len(file):
            raise ValueError(f"cut short: {stop - len(file):,} bytes or more are missing")
        ranges[key] = start, stop
        file.seek(stop)
    return ranges


def read_legacy(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads the pickle format."""
    sizes: dict[str, Storage] = {}

    def persistent(identifier: Any) -> Storage:
        one = persistent_storage(identifier)
        if sizes.setdefault(one.key, one) != one:
            raise ValueError("a storage that is said to be of two sizes or kinds")
        return one

    with (
        open(path, "rb") as raw,
        mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ) as file,
    ):
        if [read_pickle(file, known={}) for _ in range(2)] != [MAGIC, PROTOCOL]:
            raise ValueError("a pickle, but none that torch wrote")
        system = read_pickle(file, known={})
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise ValueError("its numbers are big-endian; save it on a little-endian machine")
        tensors, values = find_state_dict(
            read_pickle(file, known=ALLOWED_GLOBALS, persistent=persistent)
        )
        ranges = index_storages(file, sizes)
        if missing := {one.storage.key for one in tensors.values()} - set(ranges):
            raise ValueError(f"{len(missing)} of its storages are missing")
        return to_arrays(tensors, lambda one: file[slice(*ranges[one.key])], size=len(file)), values


def read_torch(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads a torch checkpoint.

    Among nested dictionaries the one called "state_dict", "model", ... is read; other nesting is
    flattened with dots, and a "module." prefix of every name is dropped. Nothing in the file is
    executed.

    Args:
        path: the file.

    Returns:
        Read-only arrays by name, which share memory where the tensors did (bfloat16 as
        jnp.bfloat16), and the plain values beside them.

    Raises:
        ValueError: if the file names anything but tensors and containers, is truncated, or its
            tensors claim memory that it does not hold.

    Source: the two formats as torch.save of PyTorch 1.0 to 2.13 writes them.

    >>> import pathlib, pickle, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "weights.pth")
    >>> head = pickle.dumps(MAGIC, 2) + pickle.dumps(PROTOCOL, 2)
    >>> _ = path.write_bytes(head + pickle.dumps(eval))
    >>> read_torch(path)
    Traceback (most recent call last):
    ValueError: ...weights.pth: refused: it names builtins.eval, which is neither ...
    """
    with open(path, "rb") as file:
        if file.read(4) == b"PK\3\4":
            return read_zip(path)
    try:
        return read_legacy(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
