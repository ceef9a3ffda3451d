"""Every recipe has its test, its card and its knobs."""

import inspect

import pytest

from tests.train.recipes.test_faster_rcnn import TRIED as FASTER_RCNN
from tests.train.recipes.test_masks import TRIED
from tests.train.recipes.test_photographs import RATES, SMALL
from tests.train.recipes.test_rcnn import TRIED as RCNN
from tests.train.recipes.test_videos import VIDEOS
from tests.train.recipes.test_yolo import TRIED as YOLO
from tests.train.test_recipes import TRAINED
from train.__main__ import KNOBS
from train.recipes import RECIPES


def test_every_recipe_is_tried():
    assert set(RECIPES) == {
        *TRAINED,
        *SMALL,
        *TRIED,
        *YOLO,
        *RCNN,
        *FASTER_RCNN,
        *VIDEOS,
        "finetune",
    }
    assert set(SMALL) == set(RATES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_its_card_and_its_knobs(name):
    recipe = RECIPES[name]
    card = inspect.getdoc(recipe)
    assert f"Command: python -m train {name}" in card and "Ours: " in card
    knobs = inspect.signature(recipe).parameters
    assert all(knob.kind is knob.KEYWORD_ONLY for knob in knobs.values())
    assert {"epochs", "batch_size", "learning_rate", "seed", "source"} <= set(knobs)
    assert set(knobs) - {"workdir", "layout"} <= set(KNOBS)
