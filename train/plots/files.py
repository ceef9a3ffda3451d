"""Writing of figures and text files."""

from pathlib import Path

from matplotlib.figure import Figure


def save_plot(drawing: Figure | str, path: Path) -> None:
    """Writes a figure or a text atomically."""
    temporary = path.with_name(f".{path.name}")
    if isinstance(drawing, str):
        temporary.write_text(drawing, encoding="utf-8")
    else:
        drawing.savefig(temporary, dpi=120, format="png")
    temporary.replace(path)
