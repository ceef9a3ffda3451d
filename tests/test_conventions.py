"""The conventions of the house that a machine can hold the code to."""

import ast
import importlib
import inspect
import pathlib
import re

import flax.linen as nn
import pytest

from zoo.registry import FAMILIES

ROOT = pathlib.Path(__file__).parent.parent
SOURCES = sorted(
    path for package in ("zoo", "train", "tests") for path in (ROOT / package).rglob("*.py")
)
STAND_INS = {
    "conv_general_dilated",
    "dot_general",
    "max_pool",
    "avg_pool",
    "conv_transpose",
    "resize",
}  # functions of jax's or flax's signature
FORBIDDEN = {"base", "common", "core", "engine", "helpers", "misc", "utils", "util", "lib"}


def modules(*parts: str):
    for name in parts:
        for path in sorted((ROOT / "zoo" / name).rglob("*.py")):
            names = path.relative_to(ROOT).with_suffix("").parts
            yield importlib.import_module(".".join(name for name in names if name != "__init__"))


def public(*parts: str) -> list:
    """Functions and classes that a module of these parts defines under a public name."""
    return [
        thing
        for module in modules(*parts)
        for name, thing in vars(module).items()
        if (inspect.isfunction(thing) or inspect.isclass(thing))
        and thing.__module__ == module.__name__
        and not name.startswith("_")
    ]


PUBLIC = public("ops", "losses", "layers", "models")


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__qualname__)
def test_docstring(thing):
    text = inspect.getdoc(thing)
    assert text, "a public name has a docstring"
    assert re.search(r"->.*\[|\[.*->", text.split("\n")[0]), "its first line tells the shapes"
    assert re.search(r"^Source: ", text, re.MULTILINE), "it names its source"
    assert ">>> " in text, "it has an example that runs"


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__qualname__)
def test_signature(thing):
    if inspect.isclass(thing):
        assert issubclass(thing, nn.Module) or hasattr(thing, "_fields"), "a Module or a NamedTuple"
        return
    parameters = inspect.signature(thing).parameters.values()
    positional = [p.name for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD]
    assert len(positional) <= 3 or thing.__name__ in STAND_INS
    assert "key" not in positional[1:], "the key comes first"
    assert not {"rng", "rngs", "key_"} & {p.name for p in parameters}


def test_modules_are_final():
    loose = [
        thing.__qualname__
        for thing in public("layers", "heads", "models")
        if inspect.isclass(thing) and issubclass(thing, nn.Module)
        if not getattr(thing, "__final__", False) or thing.__bases__ != (nn.Module,)
    ]
    assert loose == []


def test_a_model_takes_train_by_keyword():
    for family in FAMILIES.values():
        train = inspect.signature(family.CARD["module"].__call__).parameters["train"]
        assert train.kind == train.KEYWORD_ONLY and train.default is False


def test_rows_and_cards():
    for family in FAMILIES.values():
        assert {"module", "task", "input", "paper", "preprocessing"} <= set(family.CARD)
        assert all(isinstance(row, dict) for row in family.VARIANTS.values())
    names = [name for family in FAMILIES.values() for name in family.VARIANTS]
    assert len(names) == len(set(names)), "a name belongs to one family"


def test_file_names():
    names = [path.stem for path in SOURCES] + [path.parent.name for path in SOURCES]
    assert [name for name in names if FORBIDDEN & set(name.split("_"))] == []


@pytest.mark.parametrize("package", ["zoo", "train", "tests"])
def test_words_and_sizes(package):
    faults = []
    for path in SOURCES:
        text = path.read_text()
        where = path.relative_to(ROOT)
        if where.parts[0] != package:
            continue
        limit = 450 if where.parts[:2] == ("zoo", "models") else 350
        if package != "tests" and text.count("\n") > limit:
            faults.append(f"{where}: more than {limit} lines")
        for word in ("TO" + "DO", "FIX" + "ME", "type: " + "ignore", "no" + "qa", "mark." + "skip"):
            faults += [f"{where}: {word}"] if word in text else []
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                if node.end_lineno - node.lineno >= 60:
                    faults.append(f"{where}: {node.name} is longer than 60 lines")
                if node.name.startswith(("get_", "make_", "do_")):
                    faults.append(f"{where}: {node.name}")
    assert faults == []
