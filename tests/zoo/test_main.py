"""python -m zoo."""

import subprocess
import sys

import pytest

import zoo
from zoo.__main__ import main


def test_list(capsys, monkeypatch):
    """All of them; their cards, which take seconds to trace, are one and the same here."""
    card = zoo.model_card("lenet5")
    monkeypatch.setattr("zoo.__main__.model_card", lambda name: card._replace(name=name))
    assert main(["list"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "task", "parameters", "multiply-adds", "input"]
    assert [row.split()[0] for row in rows] == zoo.list_models()
    assert len({row.rindex(" ") for row in rows}) == 1, "columns are aligned"


def test_list_some(capsys):
    assert main(["list", "lenet*"]) == 0
    row = capsys.readouterr().out.splitlines()[2]
    assert row.split()[0] == "lenet5_modern"
    assert row.split()[2:] == ["61,706", "416,520", "32x32x1"]
    assert main(["list", "*auto*", "--task", "reconstruction"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["autoencoder", "conv_autoencoder"]


def test_show(capsys):
    assert main(["show", "lenet5"]) == 0
    out = capsys.readouterr().out
    for fact in ("60,000", "325,680", "stage1 stride 2, 6 channels", "0.07843", "LeCun"):
        assert fact in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "lene5"], "unknown model 'lene5': did you mean lenet5"),
        (["list", "--task", "detect"], "unknown task 'detect': did you mean detection?"),
        (["list", "nothing*"], "no model matches 'nothing*': see python -m zoo list"),
        (["list", "lenet*", "--task", "video"], "no model for video matches 'lenet*'"),
    ],
)
def test_mistakes(arguments, message, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and message in captured.err


def test_wrong_commands(capsys):
    for arguments in ([], ["lst"], ["list", "a", "b"], ["show"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        error = capsys.readouterr().err
        assert caught.value.code == 2 and error.count("\n") == 1 and "--help" in error


def test_help(capsys):
    for arguments in ([], ["list"], ["show"], ["predict"], ["convert"]):
        with pytest.raises(SystemExit) as caught:
            main([*arguments, "--help"])
        assert caught.value.code == 0
        said = capsys.readouterr().out
        assert f"python -m zoo {' '.join(arguments)}".strip() in said
        assert not arguments or "example: python -m zoo" in said


def test_as_a_program():
    program = [sys.executable, "-m", "zoo", "show", "lenet6"]
    run = subprocess.run(program, check=False, capture_output=True, text=True)
    assert run.returncode == 2 and "did you mean lenet5" in run.stderr
    assert "Traceback" not in run.stderr
