"""python -m zoo list [PATTERN] [--task TASK] | show NAME"""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from zoo import list_models, model_card
from zoo.registry import TASKS, ModelCard


class Parser(argparse.ArgumentParser):
    """One line for a wrong command, as for any other mistake, instead of argparse's usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> Parser:
    """The command line."""
    whole = Parser(prog="python -m zoo", description="The models of the zoo.")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    every = commands.add_parser(
        "list",
        help="a table of the models, with parameters, multiply-adds and input size",
        epilog="example: python -m zoo list 'lenet*' --task classification",
    )
    every.add_argument(
        "pattern",
        nargs="?",
        default="*",
        metavar="PATTERN",
        help="names to list, * for any letters, quoted against the shell (all of them)",
    )
    every.add_argument(
        "--task", metavar="TASK", help=f"only models of one task: {', '.join(TASKS)}"
    )
    one = commands.add_parser(
        "show",
        help="all that the card of one model says",
        epilog="example: python -m zoo show lenet5",
    )
    one.add_argument("name", metavar="NAME", help="a name that list prints")
    return whole


def by(shape: Sequence[int]) -> str:
    """(32, 32, 1) to "32x32x1"."""
    return "x".join(map(str, shape))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of words to lines of aligned columns, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        words = zip(row, widths, strict=True)
        cells = [w.rjust(n) if w[:1].isdigit() else w.ljust(n) for w, n in words]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def listing(cards: Sequence[ModelCard]) -> str:
    """Cards to the table that `list` prints."""
    head = ("name", "task", "parameters", "multiply-adds", "input")
    rows = [
        (card.name, card.task, f"{card.parameters:,}", f"{card.macs:,}", by(card.input))
        for card in cards
    ]
    return table([head, *rows])


def facts(card: ModelCard) -> str:
    """A card to the lines that `show` prints."""
    preprocessing = card.preprocessing
    stages = [
        f"{stage} stride {stride}, {channels} channels"
        for stage, (stride, channels) in card.features.items()
    ]
    rows = [
        ("name", card.name),
        ("task", card.task),
        ("paper", card.paper),
        ("reported", card.reported or "-"),
        ("parameters", f"{card.parameters:,}"),
        ("multiply-adds", f"{card.macs:,} for one image of {by(card.input)}"),
        ("features", "; ".join(stages) or "-"),
        ("resize", f"{by(preprocessing.size)} {preprocessing.interpolation}"),
        ("crop", f"{preprocessing.crop:g} of the short side"),
        ("mean", ", ".join(f"{value:.4g}" for value in preprocessing.mean)),
        ("deviation", ", ".join(f"{value:.4g}" for value in preprocessing.std)),
        *zip(["weights", *[""] * len(card.weights)], card.weights or ["-"], strict=False),
    ]
    width = max(len(word) for word, _ in rows)
    return "\n".join(f"{word:{width}}  {value}" for word, value in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Arguments to an exit code: 0, or 2 after one line that says what is wrong."""
    given = parser().parse_args(arguments)
    try:
        if given.command == "show":
            print(facts(model_card(given.name)))
        else:
            names = list_models(given.pattern, task=given.task)
            if not names:
                kind = f" for {given.task}" if given.task else ""
                raise ValueError(
                    f"no model{kind} matches {given.pattern!r}: see python -m zoo list"
                )
            print(listing([model_card(name) for name in names]))
    except ValueError as error:
        print(f"python -m zoo: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
