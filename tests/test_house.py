"""Imports point one way; the parts of both packages, and what each may stand on."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# Each part and the parts right below it; what is below those is below it too.
BELOW = {
    "zoo.lookup": [],
    "zoo.errors": [],
    "zoo.files": [],
    "zoo.pretrained": [],
    "zoo.ops": ["zoo.lookup"],
    "zoo.losses": ["zoo.ops"],
    "zoo.preprocess": ["zoo.ops"],
    "zoo.canvas": ["zoo.preprocess"],
    "zoo.layers": ["zoo.ops"],
    "zoo.heads": ["zoo.layers"],
    "zoo.models": ["zoo.heads", "zoo.preprocess"],
    "zoo.profile": ["zoo.layers"],
    "zoo.registry": ["zoo.models", "zoo.preprocess", "zoo.pretrained", "zoo.profile"],
    "zoo.fold": ["zoo.layers"],
    "zoo.weights": ["zoo.registry", "zoo.files", "zoo.errors"],
    "zoo.media": ["zoo.preprocess", "zoo.canvas", "zoo.lookup", "zoo.errors", "zoo.files"],
    "zoo.inference": ["zoo.weights", "zoo.media", "zoo.canvas"],
    "zoo": ["zoo.weights", "zoo.fold", "zoo.inference"],
    "zoo.cli": ["zoo", "zoo.registry"],
    "zoo.__main__": ["zoo.cli"],
    "train": [],
    "train.task": [],
    "train.run": ["train.task", "zoo.preprocess"],
    "train.malloc": [],
    "train.parallel": ["train.malloc"],
    "train.log": ["zoo.files"],
    "train.metrics": [],
    "train.optim": ["zoo.lookup"],
    "train.plots": ["zoo.media", "zoo.files"],
    "train.checkpoint": ["zoo.errors"],
    "train.signals": [],
    "train.progress": [],
    "train.workdir": ["train.parallel", "train.log"],
    "train.augment": ["zoo.ops"],
    "train.data": ["train.metrics", "zoo.media", "zoo.canvas", "zoo.files", "zoo.pretrained"],
    "train.rcnn": ["train.data", "train.metrics", "zoo.ops", "zoo.preprocess"],
    "train.tasks": [
        "train.task",
        "train.data",
        "train.metrics",
        "train.plots",
        "train.augment",
        "zoo.losses",
        "zoo.inference",
    ],
    "train.step": ["train.task"],
    "train.precise_batchnorm": ["train.step"],
    "train.loop": [
        "train.step",
        "train.precise_batchnorm",
        "train.run",
        "train.parallel",
        "train.checkpoint",
        "train.signals",
        "train.progress",
        "train.workdir",
        "train.log",
        "train.metrics",
        "train.plots",
        "train.data",
        "zoo",
    ],
    "train.knn": ["train.data", "zoo"],
    "train.bench": ["train.loop", "train.malloc", "train.optim"],
    "train.late_fusion": ["train.step", "train.data", "train.tasks", "train.parallel"],
    "train.recipes": [
        "train.late_fusion",
        "train.loop",
        "train.tasks",
        "train.optim",
        "train.rcnn",
        "zoo.losses",
    ],
    "train.cli": ["train.recipes", "train.knn", "train.bench", "zoo.inference"],
    "train.__main__": ["train.cli"],
}

# zoo.media imports Pillow and PyAV besides.
BASE = {"jax", "flax", "numpy", "chex", "safetensors", "zoo"}

# An assembly may import the family of its backbone; otherwise no family imports another.
ASSEMBLIES: dict[str, set[str]] = {"zoo.models.fcn": {"zoo.models.resnet", "zoo.models.vgg"}}


def files(package: str) -> list[pathlib.Path]:
    return sorted((ROOT / package).rglob("*.py"))


def part(module: str) -> str:
    """`zoo.models.lenet` belongs to `zoo.models`, `zoo` itself to `zoo`."""
    return ".".join(module.split(".")[:2])


def module_of(path: pathlib.Path) -> str:
    names = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split("."))
    return place.is_dir() or place.with_suffix(".py").exists()


def imports(source: str) -> list[str]:
    """The modules that a source text imports, wherever in it the import stands."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name if is_module(name) else str(node.module) for name in names]
    return found


def below(name: str) -> set[str]:
    return set().union(*({under} | below(under) for under in BELOW[name]))


def faults(module: str, source: str) -> list[str]:
    """The imports of `source`, as the text of `module`, that point up or sideways."""
    inside = [name for name in imports(source) if name.split(".")[0] in ("zoo", "train")]
    allowed = below(part(module)) | {part(module)}
    return [f"{module} imports {name}" for name in inside if part(name) not in allowed]


@pytest.mark.parametrize("package", ["zoo", "train"])
def test_imports_point_down(package):
    assert [f for path in files(package) for f in faults(module_of(path), path.read_text())] == []


@pytest.mark.parametrize("package", ["zoo", "train"])
def test_every_part_has_its_place(package):
    assert {part(module_of(path)) for path in files(package)} <= set(BELOW)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("zoo.layers.norm", "from zoo.models import lenet"),
        ("zoo.models.lenet", "import zoo"),
        ("zoo.registry", "def f():\n    from train.task import Task"),
        ("train.step", "from train import loop"),
        ("zoo.ops.boxes", "import zoo.layers.norm as norm"),
    ],
)
def test_an_upward_import_is_seen(module, source):
    assert len(faults(module, source)) == 1


def test_no_family_imports_another():
    for path in files("zoo/models"):
        families = {name for name in imports(path.read_text()) if name.startswith("zoo.models.")}
        assert families <= ASSEMBLIES.get(module_of(path), set()), path.name


def test_zoo_needs_its_base_alone():
    for path in files("zoo"):
        roots = {name.split(".")[0] for name in imports(path.read_text())}
        media = {"PIL", "av"} if path.parent.name == "media" else set()
        assert roots <= BASE | media | sys.stdlib_module_names, path
