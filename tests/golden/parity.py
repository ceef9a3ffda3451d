"""The table of parity, computed live: `python -m tests.golden.parity FOLDER README.md`.

FOLDER is what `python -m tests.golden.make --live --folder FOLDER` wrote a moment before; the
table goes between the two marks of the text file. `make parity` runs both.
"""

import datetime
import importlib.metadata
import json
import pathlib
import sys

from tests.golden.cases import CASES
from tests.golden.compare import evaluation, read, training

BEGIN, END = "<!-- parity: make parity -->", "<!-- end of parity -->"
HEAD = (
    "| model | reference | evaluation | loss | gradients | statistics |\n|---|---|---|---|---|---|"
)


def row(name: str, reference: str, errors: dict[str, float], trained: dict[str, float]) -> str:
    columns = [max(errors.values()), *map(trained.get, ("loss", "gradients", "statistics"))]
    shown = ["" if error is None else f"{error:.0e}" for error in columns]
    return f"| {' | '.join([name, reference, *shown])} |"


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
    rows = []
    for case in sorted(CASES, key=lambda case: (case.name, case.title)):
        if not (folder / f"{case.title}.npz").exists():
            continue
        trained = training(case, folder) if "loss" in read(case, folder)[1] else {}
        fields = "".join(f", {key}={value!r}" for key, value in case.fields.items())
        reference = f"{case.source} {case.reference}"
        rows.append(row(case.name + fields, reference, evaluation(case, folder), trained))
        print(rows[-1], flush=True)
    tools = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    told = f"Measured on {datetime.date.today()} with {tools}."
    target.write_text(insert(target.read_text(), "\n".join([told, "", HEAD, *rows])))


if __name__ == "__main__":
    main()
