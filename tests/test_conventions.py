"""Checks the conventions of the project that a program can check."""

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
# Words that name no value. Names in `zoo` use the terms of the field.
VAGUE_NAMES = {
    "alike",
    "alone",
    "anew",
    "asked",
    "beside",
    "each",
    "few",
    "found",
    "held",
    "how",
    "kept",
    "law",
    "laws",
    "lesson",
    "many",
    "meant",
    "much",
    "own",
    "place",
    "places",
    "plus",
    "said",
    "seen",
    "taught",
    "there",
    "thing",
    "things",
    "told",
    "turns",
    "wanted",
    "way",
    "ways",
    "what",
    "whole",
    "wished",
}
ALLOWED = {"make_divisible"}  # the name of this function in other libraries
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
    assert text, "expected a docstring"
    summary = text.split("\n")[0]
    assert summary.endswith("."), "expected a summary of one sentence on the first line"
    assert ">>> " in text, "expected an example"
    takes_arrays = "Array" in str(inspect.signature(thing))
    if takes_arrays or (inspect.isclass(thing) and issubclass(thing, nn.Module)):
        before_example = text.split(">>> ")[0]
        assert re.search(r"\[[^\]]*\]", before_example), "expected the shapes of the arrays"
    if inspect.isfunction(thing):
        signature = inspect.signature(thing)
        assert "Args:" in text or not signature.parameters, "expected the section Args"
        assert re.search("^(Returns|Yields):", text, re.MULTILINE), "expected the section Returns"


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


def test_models_name_their_source():
    modules = [family.CARD["module"] for family in FAMILIES.values()]
    without = [m.__name__ for m in modules if not re.search(r"(?m)^Source: ", inspect.getdoc(m))]
    assert without == []


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


def bound_names(tree: ast.AST):
    """Yields every name that a module binds: variables, parameters, functions and classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name


def test_names_use_the_terms_of_the_field():
    vague = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] == "zoo"
        for name in bound_names(ast.parse(path.read_text()))
        if name.strip("_").lower() in VAGUE_NAMES
    }
    assert vague == set()


def docstring_lines(tree: ast.AST) -> int:
    """Counts the lines of the docstrings in a syntax tree."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, kinds) and node.body]
    return sum(
        body[0].end_lineno - body[0].lineno + 1
        for body in bodies
        if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    )


@pytest.mark.parametrize("package", ["zoo", "train", "tests"])
def test_words_and_sizes(package):
    faults = []
    for path in SOURCES:
        text = path.read_text()
        where = path.relative_to(ROOT)
        if where.parts[0] != package:
            continue
        tree = ast.parse(text)
        limit = 450 if where.parts[:2] == ("zoo", "models") else 350
        if package != "tests" and text.count("\n") - docstring_lines(tree) > limit:
            faults.append(f"{where}: more than {limit} lines")
        for word in ("TO" + "DO", "FIX" + "ME", "type: " + "ignore", "no" + "qa", "mark." + "skip"):
            faults += [f"{where}: {word}"] if word in text else []
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                if node.end_lineno - node.lineno - docstring_lines(node) >= 60:
                    faults.append(f"{where}: {node.name} is longer than 60 lines")
                if node.name.startswith(("get_", "make_", "do_")) and node.name not in ALLOWED:
                    faults.append(f"{where}: {node.name}")
    assert faults == []
