"""README's tables are what the code says."""

import re
from pathlib import Path

import zoo
from train.recipes import RECIPES

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_every_model_stands_with_its_counts():
    table = README.split("<!-- models")[1].split("<!-- end of models")[0]
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| ([\d,]+) \| ([\d,]+) \| ([\dx]+) \|$", table, re.MULTILINE
    )
    expected = []
    for name in zoo.list_models():
        card = zoo.model_card(name)
        size = "x".join(map(str, card.input))
        expected.append((name, card.task, f"{card.parameters:,}", f"{card.macs:,}", size))
    assert rows == expected


def test_every_recipe_stands():
    named = set(re.findall(r"^\| `(\w+)` \|", README.split("## Training")[1], re.MULTILINE))
    assert set(RECIPES) <= named


def test_the_python_of_the_readme_is_python():
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        compile(block, "README.md", "exec")
