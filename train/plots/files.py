"""Pictures and texts as files."""

from pathlib import Path

from matplotlib.figure import Figure


def save_plot(drawing: Figure | str, path: Path) -> None:
    """Writes a picture, or a text, whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    if isinstance(drawing, str):
        temporary.write_text(drawing, encoding="utf-8")
    else:
        drawing.savefig(temporary, dpi=120, format="png")
    temporary.replace(path)
