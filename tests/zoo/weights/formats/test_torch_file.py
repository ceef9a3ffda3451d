"""Torch checkpoints read without torch: what torch wrote, what it could write, and what means harm.

torch_zip.pth and torch_legacy.pth were written by torch 2.13.0: {"epoch": 7, "state_dict": …} of a
DataParallel around a Linear(3, 2) with bfloat16 weights, and a view that shares storage.
"""

import contextlib
import io
import os
import pathlib
import pickle
import struct
import tracemalloc
import zipfile
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from zoo.weights.formats import torch_file, unpickle

HERE = pathlib.Path(__file__).parent
MEBI = 2**20


class Call(NamedTuple):
    """`module.name(*arguments)`, to be called by whoever unpickles."""

    module: str
    name: str
    arguments: Any


class Named(NamedTuple):
    """`module.name` itself."""

    module: str
    name: str


class Outer(NamedTuple):
    """A persistent identifier."""

    identifier: Any


class Raw(NamedTuple):
    """Opcodes as they stand."""

    code: bytes


def opcodes(value: Any) -> bytes:
    """A value to the pickle opcodes, of protocol 2, that push it."""
    match value:
        case Raw(code):
            return code
        case Named(module, name):
            return f"c{module}\n{name}\n".encode()
        case Call(module, name, arguments):
            return opcodes(Named(module, name)) + opcodes(arguments) + b"R"
        case Outer(identifier):
            return opcodes(identifier) + b"Q"
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            size = value.bit_length() // 8 + 1
            return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
        case str():
            text = value.encode()
            return b"X" + struct.pack("<I", len(text)) + text
        case tuple():
            return b"(" + b"".join(map(opcodes, value)) + b"t"
        case list():
            return b"](" + b"".join(map(opcodes, value)) + b"e"
        case dict():
            return b"}(" + b"".join(opcodes(part) for pair in value.items() for part in pair) + b"u"
    raise TypeError(type(value))


def program(value: Any) -> bytes:
    """A whole pickle, of a value or of bytes that are one already."""
    return value if isinstance(value, bytes) else b"\x80\x02" + opcodes(value) + b"."


def storage(key: str, size: Any, kind: str = "FloatStorage") -> Outer:
    return Outer(("storage", Named("torch", kind), key, "cpu", size, None))


def tensor(held: Any, shape: Any, strides: Any, offset: Any = 0) -> Call:
    hooks = Call("collections", "OrderedDict", ())
    arguments = (held, offset, shape, strides, False, hooks)
    return Call("torch._utils", "_rebuild_tensor_v2", arguments)


def zip_form(content: Any, storages: dict[str, np.ndarray], *, order: bytes = b"little") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", program(content))
        archive.writestr("archive/byteorder", order)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data.tobytes())
    return buffer.getvalue()


def legacy_form(
    content: Any, storages: dict[str, np.ndarray], *, little: bool = True, keys: Any = None
) -> bytes:
    head = program(torch_file.MAGIC) + program(1001) + program({"little_endian": little})
    body = program(content) + program(list(storages) if keys is None else keys)
    data = [struct.pack("<q", array.size) + array.tobytes() for array in storages.values()]
    return head + body + b"".join(data)


FORMS = {"zip": zip_form, "legacy": legacy_form}
ONE = {"w": tensor(storage("0", 6), (2, 3), (3, 1))}
SIX = {"0": np.arange(6, dtype="<f4")}


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


def read(folder: pathlib.Path, content: bytes) -> tuple[dict, dict]:
    path = folder / "weights.pth"
    path.write_bytes(content)
    return torch_file.read_torch(path)


@pytest.mark.parametrize("name", FORMS)
def test_what_torch_wrote(name):
    tensors, beside = torch_file.read_torch(HERE / f"torch_{name}.pth")
    assert beside == {"epoch": 7}
    assert list(tensors) == ["fc.weight", "fc.bias", "view"]  # "module." dropped
    weight = np.arange(6.0).reshape(2, 3)
    assert tensors["fc.weight"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(tensors["fc.weight"].astype(np.float32), weight)
    np.testing.assert_array_equal(tensors["fc.bias"], np.array([1, -2], np.float32))
    np.testing.assert_array_equal(tensors["view"], weight.T[1:])


@pytest.mark.parametrize("kind", torch_file.STORAGES)
def test_dtypes(kind, form, tmp_path):
    dtype = np.dtype(torch_file.STORAGES[kind])
    values = np.array([0, 1, 1, 0, 3, 5]).astype(dtype)
    tensors, _ = read(
        tmp_path, form({"w": tensor(storage("7", 6, kind), (6,), (1,))}, {"7": values})
    )
    assert tensors["w"].dtype == dtype
    np.testing.assert_array_equal(tensors["w"], values)


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "expected"),
    [
        ((6,), (1,), 0, np.arange(6)),
        ((3, 2), (1, 3), 0, np.arange(6).reshape(2, 3).T),
        ((2, 2), (3, 2), 0, np.arange(6).reshape(2, 3)[:, ::2]),
        ((2,), (1,), 4, np.array([4, 5])),
        ((), (), 5, np.array(5)),
        ((0, 4), (4, 1), 0, np.empty((0, 4))),
        ((1, 1, 2), (99, 0, 3), 1, np.array([[[1, 4]]])),  # no step is taken along a side of 1
    ],
)
def test_views(shape, strides, offset, expected, form, tmp_path):
    window = tensor(storage("0", 6), shape, strides, offset)
    tensors, _ = read(tmp_path, form({"view": window, **ONE}, SIX))
    np.testing.assert_array_equal(tensors["view"], expected)
    assert tensors["view"].shape == expected.shape
    assert np.shares_memory(tensors["view"], tensors["w"]) == bool(expected.size)
    assert not tensors["view"].flags.writeable


def test_other_ways_to_say_a_tensor(tmp_path):
    """Before 0.4, parameters, storages of bytes with a dtype, and names of Python 2."""
    held, where = storage("0", 6), ((2, 3), (3, 1))
    untyped = Outer(("storage", Named("torch.storage", "UntypedStorage"), "1", "cpu", 4))
    typed = (untyped, 0, (2,), (1,), False, None, Named("torch", "uint16"))
    pairs = [["old", Call("torch._utils", "_rebuild_tensor", (held, 0, *where))]]
    content = {
        "state_dict": Call("collections", "OrderedDict", (pairs,)),
        "ema": {"parameter": Call("torch._utils", "_rebuild_parameter", (ONE["w"], True, None))},
    }
    assert read(tmp_path, zip_form(content, SIX))[0].keys() == {"old"}
    del content["state_dict"]
    content["ema"][Raw(b"U\2py")] = Call("torch._utils", "_rebuild_tensor_v3", typed)
    tensors, _ = read(tmp_path, zip_form(content, {**SIX, "1": np.array([5, 6], "<u2")}))
    assert tensors["ema.parameter"].shape == (2, 3)
    assert tensors["ema.py"].tolist() == [5, 6] and tensors["ema.py"].dtype == np.uint16


@pytest.mark.parametrize(
    ("wrap", "expected"),
    [
        (lambda one: one, ["a.w"]),
        (lambda one: {"state_dict": one, "optimizer": {"state": {0: one}}, "epoch": 3}, ["a.w"]),
        (lambda one: {"model": {"state_dict": one}}, ["a.w"]),
        (lambda one: {"model": {"width": 3}, "net": one}, ["a.w"]),
        (lambda one: {"encoder": one, "decoder": dict(one)}, ["encoder.a.w", "decoder.a.w"]),
        (lambda one: {f"module.{name}": value for name, value in one.items()}, ["a.w"]),
        (lambda one: {"module.a.w": one["a.w"], "b": one["a.w"]}, ["module.a.w", "b"]),
        (lambda one: {"model": one["a.w"], "b": one["a.w"]}, ["model", "b"]),
    ],
)
def test_nesting(wrap, expected, form, tmp_path):
    tensors, _ = read(tmp_path, form(wrap({"a.w": ONE["w"]}), SIX))
    assert list(tensors) == expected


def test_two_tensors_of_one_name(form, tmp_path):
    with pytest.raises(ValueError, match="1 of its tensors have another one's name"):
        read(tmp_path, form({"a.w": ONE["w"], "a": ONE}, SIX))


def test_what_nobody_asks_for_is_not_read(tmp_path):
    """The optimizer's state may be damaged or huge: its storages are not touched."""
    content = {"state_dict": ONE, "optimizer": {"m": tensor(storage("1", 2**40), (2,), (1,))}}
    assert read(tmp_path, zip_form(content, SIX))[0].keys() == {"w"}


# ---------------------------------------------------------------------------------------- harm


class Harm:
    """Pickled by Python itself, makes a folder when Python unpickles it."""

    def __init__(self, marker: str):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def harmful(marker: str) -> dict[str, bytes]:
    """Pickles, by what they use, that make the folder `marker` when Python unpickles them."""
    line, shell = f"__import__('os').mkdir({marker!r})", f"mkdir {marker}"
    system = Call("builtins", "getattr", (Call("builtins", "__import__", ("os",)), "system"))
    shy = opcodes(Call("types", "SimpleNamespace", ())) + opcodes(
        {"__setstate__": Named("os", "mkdir")}
    )
    return {
        "REDUCE": pickle.dumps({"state_dict": Harm(marker)}, 2),
        "STACK_GLOBAL": pickle.dumps({"state_dict": Harm(marker)}, 4),
        "os.system": program(Call("os", "system", (shell,))),
        "eval": program({"a": Call("builtins", "eval", (line,))}),
        "Python 2": program({"a": Call("__builtin__", "eval", (line,))}),
        "INST": b"(" + opcodes(line) + b"ibuiltins\neval\n.",
        "OBJ": b"(cbuiltins\neval\n" + opcodes(line) + b"o.",
        "BUILD": shy + b"b" + opcodes(marker) + b"b.",
        "getattr": program(Raw(opcodes(system) + opcodes((shell,)) + b"R")),
        "in a mapping": program(
            Call("collections", "OrderedDict", (Call("os", "mkdir", (marker,)),))
        ),
        "in an outer name": program({"w": Outer(Call("os", "mkdir", (marker,)))}),
    }


@pytest.mark.parametrize("how", harmful("x"))
def test_nothing_is_run(how, form, tmp_path):
    marker = tmp_path / "marker"
    harm = harmful(str(marker))[how]

    with contextlib.suppress(TypeError, pickle.UnpicklingError):  # after the harm
        pickle.loads(harm)
    assert marker.is_dir(), "the pickle does harm"
    marker.rmdir()

    with pytest.raises(
        ValueError, match=r"weights.pth: refused: it names \w+\.\w+, which"
    ) as caught:
        read(tmp_path, form(harm, {}))
    assert "\n" not in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize("place", ["magic", "protocol", "system", "keys"])
def test_every_pickle_of_the_legacy_form_is_guarded(place, tmp_path):
    marker = tmp_path / "marker"
    parts = dict(magic=torch_file.MAGIC, protocol=1001, system={"little_endian": True}, body=ONE)
    parts |= {"keys": ["0"], place: Call("os", "mkdir", (str(marker),))}
    with pytest.raises(ValueError, match=r"refused: it names os\.mkdir"):
        read(tmp_path, b"".join(map(program, parts.values())))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (Call("torch", "FloatStorage", (2**40,)), r"calls torch\.FloatStorage"),
        (Raw(b"ctorch\nFloatStorage\n)\x81"), "opcode NEWOBJ"),
        (Raw(b"(icollections\nOrderedDict\n"), r"instance of collections\.OrderedDict"),
        (Raw(b"\x82\x01"), "opcode EXT1"),
        (Raw(b"\x8f"), "opcode EMPTY_SET"),
        (Raw(b"PX\n"), "opcode PERSID"),
        (Raw(b"NN)R"), "calls a NoneType"),
        (Raw(b"N}b"), "sets a NoneType's attributes"),
        (Raw(opcodes(ONE["w"]) + b"}b"), "sets a Tensor's attributes"),
        (Raw(b"NNa"), "puts items into a NoneType"),
        (Raw(b"cos\x1b[2J\nsystem\n"), r"names os\\x1b\[2J\.system"),
        (Outer(("module", "Net", "net.py", "source")), "no storage"),
        (
            Outer(("storage", Named("collections", "OrderedDict"), "0", "cpu", 6)),
            "model's own code",
        ),
        (Outer(("storage", Named("torch", "FloatStorage"), "0", "cpu", 6, ("1", 0, 3))), "a view"),
    ],
)
def test_refused_opcodes(code, message, form, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, form({**ONE, "more": code}, SIX))
    assert "\n" not in str(caught.value) and "weights.pth" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((7,), (1,), 0), "reaches outside its storage of 6"),
        (((6,), (1,), 1), "reaches outside"),
        (((2, 3), (4, 1), 0), "reaches outside"),
        (((1000,), (0,), 0), "reaches outside"),  # seen a thousand times over
        (((2**62, 2**62), (1, 1), 0), "reaches outside"),
        (((2**63,), (1,), 0), "a tensor whose"),
        (((6,), (-1,), 5), "a tensor whose"),
        (((6,), (1,), -1), "a tensor whose"),
        (((6,), (1, 1), 0), "a tensor whose"),
        (((1,) * 17, (1,) * 17, 0), "a tensor whose"),
        (((True,), (1,), 0), "a tensor whose"),
        (("6", (1,), 0), "a tensor whose"),
        (((0, 2**62, 2**62), (1, 1, 1), 0), "big|large|maximum"),  # numpy's words
    ],
)
def test_shapes_that_lie(arguments, message, form, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, form({"w": tensor(storage("0", 6), *arguments)}, SIX))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 7, 2**40, 2**63, -1, "6", None])
def test_storages_that_lie(size, form, tmp_path):
    with pytest.raises(ValueError, match=r"weights.pth: .*storage"):
        read(tmp_path, form({"w": tensor(storage("0", size), (1,), (1,))}, SIX))


def test_a_storage_of_two_kinds(tmp_path):
    content = {**ONE, "v": tensor(storage("0", 6, "LongStorage"), (2,), (1,))}
    with pytest.raises(ValueError, match="of two sizes or kinds"):
        read(tmp_path, legacy_form(content, SIX))
    with pytest.raises(ValueError, match="holds 24 bytes for a storage that claims 48"):
        read(tmp_path, zip_form(content, SIX))


@pytest.mark.parametrize("keys", [[], ["0", "1"], [0], {}, [[]], None])
def test_lists_of_storages_that_lie(keys, tmp_path):
    with pytest.raises(ValueError, match="storages"):
        read(tmp_path, legacy_form(ONE, SIX if keys is not None else {}, keys=keys))


def test_big_endian(tmp_path):
    for content in (zip_form(ONE, SIX, order=b"big"), legacy_form(ONE, SIX, little=False)):
        with pytest.raises(ValueError, match="big-endian"):
            read(tmp_path, content)


@pytest.mark.parametrize("name", FORMS)
def test_cut_short_anywhere(name, tmp_path):
    whole = (HERE / f"torch_{name}.pth").read_bytes()
    for size in {*range(1, len(whole), 17), *range(len(whole) - 40, len(whole))}:
        with pytest.raises(ValueError, match="weights.pth") as caught:
            read(tmp_path, whole[:size])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FORMS)
def test_any_byte_changed(name, tmp_path):
    """Other weights or a ValueError, nothing else."""
    whole = bytearray((HERE / f"torch_{name}.pth").read_bytes())
    random = np.random.default_rng(0)
    for place in random.permutation(len(whole))[:300]:
        changed = whole.copy()
        changed[place] ^= random.integers(1, 256)
        try:
            read(tmp_path, changed)
        except ValueError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("content", [[], "text", 3, ONE["w"], {}, {"a": 1}, {"a": {"b": {}}}])
def test_no_tensors(content, form, tmp_path):
    with pytest.raises(ValueError, match="holds"):
        read(tmp_path, form(content, SIX))


def nested(depth: int) -> bytes:
    """A dictionary in a dictionary, and so on."""
    return b"}" + b"X\1\0\0\0a}" * depth + b"s" * depth


BOMBS = {
    "a memo of 2**31 places": Raw(b"Nr\xff\xff\xff\x7f"),
    "bytes of 2**40": Raw(b"\x8e" + struct.pack("<Q", 2**40)),
    "a byte array of 2**40": Raw(b"\x96" + struct.pack("<Q", 2**40)),
    "text of 2**63": Raw(b"\x8d" + struct.pack("<Q", 2**63)),
    "a number of 2**31 bytes": Raw(b"\x8b\xff\xff\xff\x7f"),
    "tuples in tuples": Raw(b"}" + b")" + b"\x85" * 20_000 + b"Ns"),
    "tuples that double": Raw(b"}" + b")" + b"2\x86" * 100 + b"Ns"),
    "lists in lists": Raw(b"](" * 20_000 + b"e" * 20_000),
    "dictionaries in dictionaries": Raw(nested(20_000)),
    "itself": Raw(b"}q\1X\1\0\0\0ah\1s"),
    "keys that double": Raw(
        b"}q\0" + b"".join(b"}(X\1\0\0\0ah%cX\1\0\0\0bh%cuq%c" % (n, n, n + 1) for n in range(60))
    ),
    "keys that collide": Raw(
        b"}(" + b"".join(opcodes(n * (2**61 - 1)) + b"N" for n in range(1, 20_000)) + b"u"
    ),
    "one list, called for often": Raw(
        opcodes([[str(n), None] for n in range(10_000)])
        + b"q\0" + b"ccollections\nOrderedDict\nh\0\x85R" * 10_000
    ),
    "long names": {"a" * 200: {"b" * 200: ONE["w"]}},
    "many steps": Raw(b"N0" * 50_000),
    "a storage that is seen often": {str(n): tensor(storage("0", MEBI), (MEBI,), (1,)) for n in range(99)},
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs(bomb, tmp_path, monkeypatch):
    """A little file stays a little thing, whatever it claims."""
    monkeypatch.setattr(unpickle, "MAX_OPCODES", 80_000)
    content = BOMBS[bomb]
    mebibyte = {"0": np.zeros(MEBI, "<f4")} if isinstance(content, dict) else {}
    path = tmp_path / "weights.pth"
    path.write_bytes(legacy_form(content, mebibyte))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="weights.pth") as caught:
            torch_file.read_torch(path)
        assert tracemalloc.get_traced_memory()[1] < 32 * MEBI
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_zip_bomb(tmp_path):
    """A hundred thousand to one, which torch never writes: it packs nothing."""
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "archive/data.pkl", program({"w": tensor(storage("0", 2**26), (1,), (1,))})
        )
        with archive.open("archive/data/0", "w") as entry:
            for _ in range(256):
                entry.write(bytes(MEBI))
    with pytest.raises(ValueError, match="claims to hold 268,43.* bytes in a file of"):
        torch_file.read_torch(path)


def test_an_archive_of_nothing_but_a_directory(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.weights.formats.archive.MAX_DIRECTORY_BYTES", 1000)
    with pytest.raises(ValueError, match="list of entries takes"):
        read(tmp_path, zip_form(ONE, {str(n): np.zeros(1) for n in range(30)}))
