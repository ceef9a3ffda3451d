"""Metrics of each class as text."""

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np


def class_table(
    counts: np.ndarray, classes: Sequence[str], figures: Mapping[str, np.ndarray]
) -> str:
    r"""Formats confusion counts [K, K] and metrics [K] as CSV with a line per class; NaN is empty.

    >>> class_table(np.array([[3, 1], [0, 0]]), ("no", "yes"), {"recall": np.array([0.75, np.nan])})
    'class,support,predicted,recall\nno,4,3,0.7500\nyes,0,1,\n'
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["class", "support", "predicted", *figures])
    for number, name in enumerate(classes):
        shares = [figure[number] for figure in figures.values()]
        cells = ["" if np.isnan(share) else f"{share:.4f}" for share in shares]
        writer.writerow([name, counts[number].sum(), counts[:, number].sum(), *cells])
    return text.getvalue()
