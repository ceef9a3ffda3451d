"""Imports point one way; the parts of both packages, and what each may stand on."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# Each part and the parts right below it; what is below those is below it too.
BELOW = {
    "zoo.choice": [],
    "zoo.palette": [],
    "zoo.ops": ["zoo.choice"],
    "zoo.losses": ["zoo.ops"],
    "zoo.layers": ["zoo.ops"],
    "zoo.heads": ["zoo.layers"],
    "zoo.models": ["zoo.heads"],
    "zoo.preprocess": ["zoo.ops"],
    "zoo.canvas": ["zoo.preprocess"],
    "zoo.published": [],
    "zoo.measure": ["zoo.layers"],
    "zoo.registry": ["zoo.models", "zoo.preprocess", "zoo.published", "zoo.measure"],
    "zoo.fold": ["zoo.layers"],
    "zoo.weights": ["zoo.registry"],
    "zoo": ["zoo.weights", "zoo.fold"],
    "zoo.show": ["zoo.registry"],
    "zoo.tiles": ["zoo.ops"],
    "zoo.predict": ["zoo.weights", "zoo.palette", "zoo.tiles", "zoo.canvas"],
    "zoo.pictures": ["zoo.preprocess", "zoo.choice"],
    "zoo.segment": ["zoo.predict"],
    "zoo.video": [],
    "zoo.detect": ["zoo.predict", "zoo.canvas"],
    "zoo.detect_files": ["zoo.detect", "zoo.pictures", "zoo.video"],
    "zoo.predict_video": ["zoo.predict", "zoo.pictures", "zoo.video"],
    "zoo.predict_command": ["zoo.segment", "zoo.detect_files", "zoo.predict_video"],
    "zoo.convert": ["zoo.weights"],
    "zoo.__main__": ["zoo", "zoo.show", "zoo.predict_command", "zoo.convert"],
    "train": [],
    "train.task": [],
    "train.run": ["train.task", "zoo.preprocess"],
    "train.schedules": ["zoo.choice"],
    "train.memory": [],
    "train.parallel": ["train.memory"],
    "train.log": [],
    "train.border": [],
    "train.metrics": ["train.border"],
    "train.detection_metrics": [],
    "train.plots": ["zoo.palette"],
    "train.checkpoint": [],
    "train.signals": [],
    "train.progress": [],
    "train.workdir": ["train.parallel", "train.log"],
    "train.paths": [],
    "train.augment": ["zoo.ops"],
    "train.data": [
        "train.border",
        "zoo.choice",
        "zoo.preprocess",
        "zoo.palette",
        "zoo.pictures",
        "zoo.video",
        "zoo.canvas",
    ],
    "train.rcnn": ["train.data", "train.detection_metrics", "zoo.ops", "zoo.preprocess"],
    "train.optimizers": ["train.schedules", "train.paths"],
    "train.tasks": [
        "train.task",
        "train.metrics",
        "train.detection_metrics",
        "train.plots",
        "train.augment",
        "zoo.losses",
        "zoo.preprocess",
        "zoo.canvas",
        "zoo.tiles",
    ],
    "train.step": ["train.task"],
    "train.precise": ["train.step"],
    "train.loop": [
        "train.step",
        "train.precise",
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
    "train.neighbours": ["train.data", "zoo"],
    "train.diagnose": ["train.loop"],
    "train.bench": ["train.loop", "train.memory", "train.optimizers"],
    "train.fusion": ["train.step", "train.data", "train.tasks", "train.parallel"],
    "train.recipes": [
        "train.fusion",
        "train.loop",
        "train.tasks",
        "train.optimizers",
        "train.rcnn",
        "zoo.losses",
    ],
    "train.commands": ["train.loop", "train.tasks", "train.neighbours", "zoo.predict"],
    "train.__main__": ["train.recipes", "train.commands", "train.diagnose", "train.bench"],
}

# zoo/pictures has Pillow besides, zoo/video PyAV.
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
        own = {"pictures.py": {"PIL"}, "video.py": {"av"}}.get(path.name, set())
        assert roots <= BASE | own | sys.stdlib_module_names, path
