"""What a bench measured, as a table for people and JSON for machines."""

from collections.abc import Mapping, Sequence
from typing import Any

REPORT_COLUMNS = {  # the key of a row: its head, and how it is shown
    "model": ("model", str),
    "what": ("what", str),
    "batch": ("batch", str),
    "images_per_second": ("images/s", lambda v: f"{v:.3g}"),
    "spread": ("spread", lambda v: f"{100 * v:.0f} %"),
    "nms_share": ("NMS", lambda v: f"{100 * v:.0f} %"),
    "torch_images_per_second": ("torch images/s", lambda v: f"{v:.3g}"),
    "ratio": ("ours / torch", lambda v: f"{v:.2f}"),
    "macs_per_second": ("GMAC/s", lambda v: f"{v / 1e9:.3g}"),
    "share": ("of matmul", lambda v: f"{100 * v:.0f} %"),
    "compile_seconds": ("compile s", lambda v: f"{v:.1f}"),
    "memory": ("XLA's plan MB", lambda v: f"{v / 1e6:,.0f}"),
    "resident": ("process peak MB (RSS)", lambda v: f"{v / 1e6:,.0f}"),
    "torch_resident": ("torch peak MB (RSS)", lambda v: f"{v / 1e6:,.0f}"),
}
MODE_LABELS = 2  # leading columns that are words, not numbers


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows -> a markdown table, without the columns that no row has.

    >>> print(format_table([{"model": "vgg16", "what": "forward", "images_per_second": 10.66}]))
    | model | what | images/s |
    |---|---|---:|
    | vgg16 | forward | 10.7 |
    """
    keys = [key for key in REPORT_COLUMNS if any(row.get(key) is not None for row in rows)]
    lines = [[REPORT_COLUMNS[key][0] for key in keys]]
    lines += [["---" if key in list(REPORT_COLUMNS)[:MODE_LABELS] else "---:" for key in keys]]
    for row in rows:
        shown = [(REPORT_COLUMNS[key][1], row.get(key)) for key in keys]
        lines.append(["" if value is None else show(value) for show, value in shown])
    rule = "|" + "|".join(lines[1]) + "|"
    return "\n".join(rule if line is lines[1] else f"| {' | '.join(line)} |" for line in lines)
