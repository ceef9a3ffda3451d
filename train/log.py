"""Log lines, the progress bar, metrics.jsonl and TensorBoard events of a run."""

import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.table import Table
from tensorboardX import SummaryWriter
from tqdm import tqdm

from zoo.files import atomic_write

log = logging.getLogger("train")


class ProgressHandler(logging.Handler):
    """Prints log records above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record."""
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        tqdm.write(prefix + self.format(record), file=sys.stdout)
        sys.stdout.flush()


def setup_logging(*, speak: bool = True) -> None:
    """Sends the logger "train" to the screen.

    Args:
        speak: False silences it, for all processes but one.
    """
    if not log.handlers:
        log.addHandler(ProgressHandler() if speak else logging.NullHandler())
        log.setLevel(logging.INFO)
        log.propagate = False


def progress_bar(*, total: int, start: int, disable: bool) -> tqdm:
    """Creates a progress bar of steps, which is visible on terminals only.

    Args:
        total: total number of steps.
        start: number of finished steps.
        disable: hide the bar.

    Returns:
        The progress bar.
    """
    return tqdm(
        total=total,
        initial=start,
        unit="step",
        dynamic_ncols=True,
        leave=False,
        disable=disable or not sys.stderr.isatty(),
    )


def read_rows(path: Path) -> list[dict[str, float]]:
    """Reads metrics.jsonl and omits lines that an interruption cut off."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text)


class Metrics:
    """Writes metrics.jsonl and TensorBoard events of one work directory.

    After a restart, the rows after the checkpoint are removed, so that each step occurs once.

    Args:
        workdir: the work directory.
        step: step of the checkpoint.
        write: False keeps the rows in memory only, for all processes but one.
    """

    def __init__(self, workdir: Path, *, step: int, write: bool = True):
        self.path = workdir / "metrics.jsonl"
        self.rows: list[dict[str, float]] = []
        self.events: SummaryWriter | None = None
        if write:
            self.rows = [row for row in read_rows(self.path) if row["step"] <= step]
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in self.rows))
            self.events = SummaryWriter(str(workdir / "events"), purge_step=step + 1)

    def write(self, row: Mapping[str, float]) -> None:
        """Appends a row to the file and to the TensorBoard events."""
        self.rows.append(dict(row))
        if self.events is None:
            return
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        for name, value in row.items():
            if name != "step":
                self.events.add_scalar(name, value, int(row["step"]))
        self.events.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.events is not None:
            self.events.close()


def format_row(row: Mapping[str, float]) -> str:
    """Formats a row of metrics as `epoch 3  step 60  train/loss 0.1234 ...`."""
    head = f"epoch {row['epoch']:<4g} step {row['step']:<7g}"
    return head + "  ".join(
        f"{name} {value:.4g}" for name, value in row.items() if name not in ("step", "epoch")
    )


def print_summary(title: str, row: Mapping[str, float]) -> None:
    """Prints a table of metrics with a line per metric and a column per source."""
    names = [name.split("/", 1) for name in row if "/" in name]
    sources = list(dict.fromkeys(source for source, _ in names))
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    for source in sources:
        table.add_column(source, justify="right")
    for metric in dict.fromkeys(metric for _, metric in names):
        values = (row.get(f"{source}/{metric}") for source in sources)
        table.add_row(metric, *("" if value is None else f"{value:.4f}" for value in values))
    Console().print(table)
