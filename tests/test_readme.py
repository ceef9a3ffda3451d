"""README's tables are what the code says."""

import re
from pathlib import Path

import zoo
from train.recipes import RECIPES
from zoo.registry import variant_card

README = (Path(__file__).parent.parent / "README.md").read_text()
TABLE = README.split("<!-- models")[1].split("<!-- end of models")[0]


def test_every_model_stands():
    """With its task and its input; the counts are tests/zoo/test_models.py's."""
    rows = re.findall(
        r"^\| `(\w+)` \| (\w+) \| [\d,]+ \| [\d,]+ \| ([\dx]+) \|$", TABLE, re.MULTILINE
    )
    expected = []
    for name in zoo.list_models():
        card, _ = variant_card(name)
        expected.append((name, card["task"], "x".join(map(str, card["input"]))))
    assert rows == expected


def test_every_recipe_stands():
    named = set(re.findall(r"^\| `(\w+)` \|", README.split("## Training")[1], re.MULTILINE))
    assert set(RECIPES) <= named


def test_the_python_of_the_readme_is_python():
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        compile(block, "README.md", "exec")
