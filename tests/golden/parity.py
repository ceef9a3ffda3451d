"""The table of parity, computed live: `python -m tests.golden.parity FOLDER README.md`.

FOLDER is what `python -m tests.golden.make --live --folder FOLDER` wrote a moment before; the
table goes between the two marks of the text file. `make parity` runs both.
"""

import concurrent.futures
import datetime
import importlib.metadata
import json
import multiprocessing
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tests.golden.cases import CASES
from tests.golden.compare import evaluation, read, training

BEGIN, END = "<!-- parity: make parity -->", "<!-- end of parity -->"
HEAD = """\
| model | references | evaluation | loss | gradients | statistics |
|---|---|---|---|---|---|"""
TRAINED = ("loss", "gradients", "statistics")


def row(name: str, sources: Iterable[str], errors: Sequence[Mapping[str, float]]) -> str:
    """A variant's worst errors over its references; nothing where nothing was compared."""
    evaluated = [e for each in errors for key, e in each.items() if key not in TRAINED]
    trained = [[each[key] for each in errors if key in each] for key in TRAINED]
    shown = ["" if not found else f"{max(found):.0e}" for found in (evaluated, *trained)]
    return f"| {' | '.join([name, ', '.join(sorted(set(sources))), *shown])} |"


def compare(name: str, folder: pathlib.Path) -> str | None:
    """A variant's row, or None where the folder holds no golden file of it."""
    cases = [c for c in CASES if c.name == name and (folder / f"{c.title}.npz").exists()]
    errors = [evaluation(case, folder) for case in cases]
    errors += [training(case, folder) for case in cases if "loss" in read(case, folder)[1]]
    return row(name, [case.source for case in cases], errors) if errors else None


def rows(folder: pathlib.Path) -> Iterator[str]:
    """Every variant's row, in the order of CASES.

    Each is computed by a new process: what jax and the allocator keep of all programs and of
    float64 weights of VGG adds up to more than 23 GB.
    """
    spawn = multiprocessing.get_context("spawn")
    names = dict.fromkeys(case.name for case in CASES)
    with concurrent.futures.ProcessPoolExecutor(1, spawn, max_tasks_per_child=1) as processes:
        for found in processes.map(compare, names, [folder] * len(names)):
            if found is not None:
                yield found


def insert(text: str, table: str) -> str:
    """`text` with what is between the marks replaced by `table`."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"expected the marks {BEGIN} and {END}, once each")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    folder, target = map(pathlib.Path, sys.argv[1:])
    insert(target.read_text(), "")  # before an hour of work, not after
    versions = json.loads((folder / "versions.json").read_text())
    versions |= {name: importlib.metadata.version(name) for name in ("jax", "flax")}
    lines = []
    for line in rows(folder):
        lines.append(line)
        print(line, flush=True)
    tools = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    told = f"Measured on {datetime.date.today()} with {tools}."
    target.write_text(insert(target.read_text(), "\n".join([told, "", HEAD, *lines])))


if __name__ == "__main__":
    main()
