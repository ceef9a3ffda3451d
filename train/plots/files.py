"""Writing of figures and text files."""

from pathlib import Path

from matplotlib.figure import Figure

from zoo.files import atomic_write


def save_plot(drawing: Figure | str, path: Path) -> None:
    """Writes a figure or a text atomically."""
    with atomic_write(path) as temporary:
        if isinstance(drawing, str):
            temporary.write_text(drawing, encoding="utf-8")
        else:
            drawing.savefig(temporary, dpi=120, format="png")
