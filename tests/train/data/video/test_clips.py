"""Clips of files: which frames and which part of them, and the layouts that name the files."""

import logging
import pathlib
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.zoo.media.test_video_io import number_of, pictures, write
from train.data import eval_batches, open_clips, train_batches
from train.data.video.clips import View, crop_frame, eval_view, random_view
from train.data.video.open import clip_sampling, open_tfds_clips
from zoo.preprocess import Preprocessing

PRE = Preprocessing((0.5,) * 3, (0.5,) * 3, size=(16, 32), frames=4, stride=3)
TINY = dict(codec="mpeg4", size=(32, 64))


def clips(folder, names, count=20):
    """One clip written once, and copied under each name."""
    first = None
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if first is None:
            first = write(file, count, **TINY)
        else:
            file.write_bytes(pathlib.Path(first).read_bytes())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("clips")
    names = ["train/left/a.mp4", "train/left/b.mp4", "train/right/c.mp4", "train/right/d.mp4"]
    clips(made, [*names, "val/left/e.mp4", "val/right/deeper/f.mp4"])
    return made


def times(example):
    return [number_of(frame) for frame in example["video"]]


def test_a_folder_of_classes(folder):
    sources = open_clips(f"folder:{folder}", PRE, views=(3, 1))
    assert {part: len(source) for part, source in sources.items()} == {"train": 4, "val": 6}
    train, val = sources["train"], sources["val"]
    assert train.classes == ("left", "right") and train.labels.tolist() == [0, 0, 1, 1]
    assert train.mirrored.tolist() == [1, 0]
    example = val[4]
    assert example["video"].shape == (4, 16, 32, 3) and example["video"].dtype == np.uint8
    assert example["label"] == 1 and example["group"] == 1
    assert [times(val[i]) for i in range(3)] == [[0, 3, 6, 9], [5, 8, 11, 14], [10, 13, 16, 19]]
    assert val.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(pickle.loads(pickle.dumps(val))) == 6


def test_training_draws_by_seed_and_number(folder):
    plain = open_clips(f"folder:{folder}", PRE)["train"]
    starts = {times(plain.draw(0, number=n, seed=0))[0] for n in range(60)}
    assert starts == set(range(11))
    train = open_clips(f"folder:{folder}", PRE, sides=(32, 48))["train"]
    same = [train.draw(1, number=7, seed=5)["video"] for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert any((train.draw(1, number=n, seed=5)["video"] != same[0]).any() for n in (8, 9))
    (first,) = train_batches(train, batch_size=4, seed=0, start=3, stop=4)
    (again,) = train_batches(train, batch_size=4, seed=0, start=3, stop=4)
    np.testing.assert_array_equal(first["video"], again["video"])
    (batch,) = eval_batches(train, batch_size=4)
    assert batch["group"].tolist() == [0, 1, 2, 3]


def test_the_law_of_parts():
    sampling = clip_sampling(PRE._replace(size=(16, 16)), sides=(20, 30), views=(1, 1))
    parts = [random_view(50, sampling, key=(0, n)) for n in range(2000)]
    for share in (
        [part.times[0] / 40 for part in parts],
        [(part.side - 20) / 10 for part in parts],
        [part.across for part in parts],
        [part.down for part in parts],
    ):
        assert min(share) < 0.01 and max(share) > 0.99 and abs(np.mean(share) - 0.5) < 0.03
    assert max(part.times[-1] for part in parts) == 49
    short = random_view(6, sampling, key=(0,))
    assert short.times == [0, 3, 5, 5] == eval_view(0, 6, sampling).times


def test_ten_clips_and_three_crops_cover_the_video():
    sampling = clip_sampling(PRE._replace(size=(16, 16)), sides=None, views=(10, 3))
    views = [eval_view(n, 100, sampling) for n in range(30)]
    assert [v.times[0] for v in views[::3]] == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]
    frame = np.broadcast_to(np.arange(48, dtype=np.uint8)[None, :, None] * 5, (16, 48, 3))
    for v, left in zip(views[:3], (0, 16, 32), strict=True):
        np.testing.assert_array_equal(crop_frame(frame, v)[0], frame[:, left : left + 16])
    portrait = crop_frame(frame.transpose(1, 0, 2), views[2])[0]
    np.testing.assert_array_equal(portrait, frame.transpose(1, 0, 2)[32:])


def test_a_part_is_pillow_s_resize():
    frame = pictures(256, (40, 64))[201]
    part = View([0], side=20, across=1.0, down=0.0, size=(16, 16))
    whole = Image.fromarray(frame).resize((32, 20), Image.Resampling.BILINEAR)
    pixels, scale = crop_frame(frame, part)
    assert scale == 0.5
    np.testing.assert_allclose(pixels, np.asarray(whole)[:16, 16:], atol=1)
    assert crop_frame(frame, part._replace(size=(50, 16)))[0].shape == (50, 16, 3)


def test_gray_clips(folder):
    gray = Preprocessing((0.5,), (0.5,), size=(16, 32), frames=4, stride=1)
    example = open_clips(f"folder:{folder}", gray)["val"][0]
    assert example["video"].shape == (4, 16, 32, 1)
    assert [number_of(np.repeat(f, 3, -1)) for f in example["video"]] == [8, 9, 10, 11]


def test_broken_clips_are_named_and_counted(folder, tmp_path, caplog):
    names = ["left/a.mp4", "left/b.mp4", "right/c.mp4", "right/d.mp4"]
    clips(tmp_path, [f"{part}/{name}" for part in ("train", "val") for name in names])
    (tmp_path / "train/left/a.mp4").write_bytes(b"no video")
    whole = (tmp_path / "train/right/d.mp4").read_bytes()
    (tmp_path / "train/right/d.mp4").write_bytes(whole[: len(whole) // 3])
    train = open_clips(f"folder:{tmp_path}", PRE)["train"]
    with caplog.at_level(logging.WARNING, "train"):
        examples = [train[i] for i in (0, 1, 2, 3, 0)]
    assert [int(e["label"]) for e in examples] == [0, 0, 1, 1, 0]
    np.testing.assert_array_equal(examples[0]["video"], examples[1]["video"])
    assert len(train.unreadable) == 2 and len(caplog.messages) == 2
    assert caplog.messages[0].startswith(f"{tmp_path}/train/left/a.mp4 is unreadable (")
    (tmp_path / "train/left/b.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="class left has no readable video"):
        open_clips(f"folder:{tmp_path}", PRE)["train"][0]


@pytest.fixture(scope="module")
def ucf(tmp_path_factory):
    made = tmp_path_factory.mktemp("ucf")
    lists = made / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 ApplyLipstick\n2 Archery\n")
    names = [f"{c}/v_{c}_g0{g}_c01.avi" for c in ("ApplyLipstick", "Archery") for g in (1, 2, 3)]
    clips(made / "UCF-101", names)
    for n in (1, 2, 3):
        train = [name for name in names if f"_g0{n}_" not in name]
        rows = [f"{name} {1 + name.startswith('Archery')}" for name in train]
        (lists / f"trainlist0{n}.txt").write_text("\r\n".join(rows) + "\r\n")
        test = [name for name in names if f"_g0{n}_" in name]
        (lists / f"testlist0{n}.txt").write_text("\n".join(test) + "\n")
    return made


def test_ucf101_and_its_official_splits(ucf):
    for spec, out in ((f"ucf101:{ucf}", "g01"), (f"ucf101:{ucf}:3", "g03")):
        sources = open_clips(spec, PRE, views=(2, 3))
        assert sources["train"].classes == ("ApplyLipstick", "Archery")
        assert sources["train"].labels.tolist() == [0, 0, 1, 1]
        assert len(sources["test"]) == 12 and sources["test"].video_labels.tolist() == [0, 1]
        assert all(out in file for file in sources["test"].store.files)
        assert times(sources["test"][0]) == [0, 3, 6, 9]


@pytest.fixture(scope="module")
def kinetics(tmp_path_factory):
    made = tmp_path_factory.mktemp("kinetics")
    names = ["a-1_000003_000013", "b_c_000001_000011", "d_000001_000011"]
    clips(made, [f"train/{n}.mp4" for n in names] + ["val/x/e_000100_000110.mp4"])
    header = "label,youtube_id,time_start,time_end,split\n"
    rows = [
        '"dancing, slow",a-1,3,13,train',
        "abseiling,b_c,1,11,train",
        "abseiling,gone,5,15,train",
    ]
    (made / "train.csv").write_text(header + "\n".join([*rows, "abseiling,d,1,11,train"]))
    (made / "validate.csv").write_text(header + "abseiling,e,100,110,val\n")
    (made / "test.csv").write_text("youtube_id,time_start,time_end,split\nz,1,11,test\n")
    return made


def test_kinetics_lists(kinetics, caplog):
    with caplog.at_level(logging.WARNING, "train"):
        sources = open_clips(f"csv:{kinetics}", PRE)
    assert sources.keys() == {"train", "val"}
    assert sources["train"].classes == ("abseiling", "dancing, slow")
    assert sources["train"].labels.tolist() == [1, 0, 0] and sources["val"].labels.tolist() == [0]
    (line,) = caplog.messages
    assert "1 of its 4 videos are not there" in line and "gone_000005_000015" in line


@pytest.mark.parametrize("form", ["{} {}", "{},{}"])
def test_lists_of_files_and_labels(kinetics, tmp_path, form):
    rows = [
        form.format(kinetics / f"train/{n}.mp4", k)
        for n, k in (("a-1_000003_000013", 2), ("d_000001_000011", 0))
    ]
    (tmp_path / "train.csv").write_text("\n".join(rows))
    (tmp_path / "val.csv").write_text(rows[0])
    sources = open_clips(f"csv:{tmp_path}", PRE)
    assert sources["train"].labels.tolist() == [2, 0] and sources["val"].classes == ("0", "1", "2")
    (tmp_path / "classes.txt").write_text("run\nswim far\nfly\n")
    assert open_clips(f"csv:{tmp_path}", PRE)["val"].classes == ("run", "swim far", "fly")


class Waves(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Four clips of five frames, as a set of TFDS that needs no TensorFlow."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "video": tfds.features.Sequence(image),
                    "label": tfds.features.ClassLabel(names=["left", "right"]),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(4), "test": self._generate_examples(2)}

    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"video": [Image.fromarray(f) for f in pictures(5 + i)], "label": i % 2}


def test_a_set_of_tfds(tmp_path):
    builder = Waves(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    sampling = clip_sampling(PRE._replace(stride=2), sides=None, views=(2, 1))
    sources = open_tfds_clips("waves", sampling, data_dir=str(tmp_path))
    assert sources["train"].labels.tolist() == [0, 1, 0, 1] and len(sources["test"]) == 4
    assert times(sources["test"][2]) == [0, 2, 4, 5] and sources["test"][2]["label"] == 1
    assert times(sources["train"].draw(3, number=0, seed=0))[1] >= 2


def wrong(tmp_path, name):
    """What the file system has, and the source that names it."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare/a").mkdir(parents=True)
    (tmp_path / "bare/b").mkdir()
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/train.csv").write_text("nothing.mp4 0\n")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/train.csv").write_text("nothing.mp4\n")
    return {
        "scheme": ("fodler:x", "did you mean folder:PATH"),
        "no path": ("csv", "expected the form csv:PATH"),
        "no folder": (f"folder:{tmp_path}/none", "there is no folder"),
        "no classes": (f"folder:{tmp_path}/empty", "0 class folders"),
        "no videos": (f"folder:{tmp_path}/bare", "bare/a has no videos"),
        "no lists": (f"ucf101:{tmp_path}/empty", "has no classInd.txt"),
        "no csv": (f"csv:{tmp_path}/empty", "has no train.csv"),
        "nothing there": (f"csv:{tmp_path}/lists", "none of its 1 videos is there"),
        "no label": (f"csv:{tmp_path}/odd", "expected 'FILE LABEL'"),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "scheme",
        "no path",
        "no folder",
        "no classes",
        "no videos",
        "no lists",
        "no csv",
        "nothing there",
        "no label",
    ],
)
def test_what_cannot_be_opened_is_one_line(tmp_path, name):
    spec, says = wrong(tmp_path, name)
    with pytest.raises((ValueError, FileNotFoundError), match=says) as caught:
        open_clips(spec, PRE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "knobs, says",
    [
        (dict(preprocessing=PRE._replace(frames=0)), "frames and a stride"),
        (dict(sides=(8, 20)), "from 32 on"),
        (dict(views=(10, 2)), "1 or 3 crops"),
    ],
)
def test_knobs_that_cannot_be(knobs, says):
    with pytest.raises(ValueError, match=says):
        clip_sampling(**{"preprocessing": PRE, "sides": None, "views": (1, 1), **knobs})
