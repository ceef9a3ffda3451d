"""python -m train: what a person types and reads."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.train.test_loop import rows_of
from train.__main__ import main
from train.recipes import RECIPES

SHORT = ["lenet5_digits", "--epochs", "4", "--batch-size", "128"]


def start(*words, **environment):
    """A process of its own, as a shell would start it."""
    return subprocess.Popen(
        [sys.executable, "-m", "train", *map(str, words)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(*words, **environment):
    process = start(*words, **environment)
    said = process.communicate(timeout=300)[0]
    return process.returncode, said


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    code, said = run(*SHORT, "--workdir", workdir)
    assert code == 0, said
    return workdir, said


def test_plain_lines_where_there_is_no_terminal(undisturbed):
    _, said = undisturbed
    assert len(re.findall(r"^epoch \d", said, re.MULTILINE)) == 4
    assert "\r" not in said and "test" in said and "predictions.png" in said


def test_kill_9_anywhere_and_the_same_command_ends_the_same(undisturbed, tmp_path):
    whole, _ = undisturbed
    workdir = tmp_path / "run"
    process = start(*SHORT, "--workdir", workdir)
    generator = np.random.default_rng()
    wanted = int(generator.integers(1, 4))  # rows before the kill; then somewhere in the next epoch
    while not (workdir / "metrics.jsonl").exists() or len(rows_of(workdir)) < wanted:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)
    time.sleep(generator.uniform(0, 0.1))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    code, said = run(*SHORT, "--workdir", workdir)
    assert code == 0, said
    assert rows_of(workdir) == rows_of(whole)
    assert (workdir / "model.safetensors").read_bytes() == (
        whole / "model.safetensors"
    ).read_bytes()


def test_sigterm_saves_says_so_and_exits_0(undisturbed, tmp_path):
    whole, _ = undisturbed
    workdir = tmp_path / "run"
    process = start(*SHORT, "--workdir", workdir)
    while not (workdir / "metrics.jsonl").exists() or not rows_of(workdir):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)
    process.terminate()
    began = time.monotonic()
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and time.monotonic() - began < 20
    assert re.search(r"stopped at step \d+ and saved", said), said
    code, said = run(*SHORT, "--workdir", workdir)
    assert code == 0 and rows_of(workdir) == rows_of(whole), said


def test_help_lists_every_recipe_with_a_line(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for name in RECIPES:
        assert re.search(rf"^  {name} +\w.{{20}}", said, re.MULTILINE)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_s_help_shows_its_knobs(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    said = capsys.readouterr().out
    for knob in ("epochs", "batch-size", "learning-rate", "seed", "source"):
        assert f"--{knob}" in said, f"{name} lacks the knob {knob}"
    for flag in ("workdir", "parallel", "devices", "shard"):
        assert f"--{flag}" in said


BAD = {
    "recipe": (["lenet5_digit"], "did you mean lenet5_digits"),
    "knob": (["lenet5_digits", "--epocs", "3"], "did you mean --epochs"),
    "type": (["lenet5_digits", "--epochs", "many"], "--epochs.*'many'"),
    "choice": (["lenet5_digits", "--parallel", "pmpa"], "'jit', *'pmap'"),
    "model": (["lenet5_digits", "--model", "lenet5_moder"], "lenet5_modern"),
    "optimizer": (["lenet5_digits", "--optimizer", "adma"], "adam"),
    "source": (["lenet5_digits", "--source", "digit"], "digits"),
    "missing folder": (["lenet5_digits", "--source", "folder:{tmp}/nowhere"], "nowhere"),
    "empty folder": (["lenet5_digits", "--source", "folder:{tmp}"], "{tmp}"),
    "idx": (["lenet5_mnist", "--source", "idx:{tmp}/nowhere"], "nowhere"),
    "batch too large": (["lenet5_digits", "--batch-size", "5000"], "1257"),
    "batch of none": (["lenet5_digits", "--batch-size", "0"], "batch"),
    "epochs of none": (["lenet5_digits", "--epochs", "0"], "epochs"),
    "no photograph": (["augment-gallery", "{tmp}/cat.jpg"], "cat.jpg"),
    "gallery's knob": (["augment-gallery", "cat.jpg", "--outptu", "x"], "did you mean --output"),
    "rate": (["lenet5_digits", "--learning-rate", "-1"], "learning.rate"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_2(case, tmp_path, capsys):
    words, says = BAD[case]
    words = [word.format(tmp=tmp_path) for word in words]
    workdir = tmp_path / "run" / "dir"
    if words[0] in RECIPES:
        words += ["--workdir", str(workdir)]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("train: ")
    assert re.search(says.format(tmp=tmp_path), said)
    assert not workdir.exists(), "something was written"


def test_one_bad_word_in_a_process_of_its_own_shows_no_traceback():
    code, said = run("lenet5_digits", "--devices", "8", "--batch-size", "12")
    assert code == 2 and said.count("\n") == 1 and "--batch-size 8" in said


def test_a_workdir_of_another_run_is_named(undisturbed, capsys):
    whole, _ = undisturbed
    assert main([*SHORT[:-1], "64", "--workdir", str(whole)]) == 2
    assert "batch_size 128 there, 64 asked for" in capsys.readouterr().err
