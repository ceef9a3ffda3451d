"""Entry point of `python -m zoo`: list, show, predict and convert."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from zoo import list_models, model_card
from zoo.cli.convert import convert_weights
from zoo.cli.predict import WEIGHTS_HELP, add_predict, predict
from zoo.cli.show import format_card, format_listing
from zoo.registry import TASKS
from zoo.weights.publishers import SOURCES


class Parser(argparse.ArgumentParser):
    """A parser that reports a wrong command in one line."""

    def error(self, message: str) -> NoReturn:
        """Exits with 2 and one line."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def create_parser() -> Parser:
    """Creates the parser of the command line."""
    parser = Parser(
        prog="python -m zoo", description="List, inspect and apply the models of the zoo."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    list_command = commands.add_parser(
        "list",
        help="print a table of models with parameters, multiply-adds and input size",
        epilog="example: python -m zoo list 'lenet*' --task classification",
    )
    list_command.add_argument(
        "pattern",
        nargs="?",
        default="*",
        metavar="PATTERN",
        help="model names; * matches any characters, in quotes (default: all models)",
    )
    list_command.add_argument(
        "--task", metavar="TASK", help=f"list the models of one task: {', '.join(TASKS)}"
    )
    show_command = commands.add_parser(
        "show",
        help="print the card of one model",
        epilog="example: python -m zoo show lenet5",
    )
    show_command.add_argument("name", metavar="NAME", help="a model name, as printed by list")
    add_predict(commands)
    add_convert(commands)
    return parser


def add_convert(commands: Any) -> None:
    """Adds the command `convert` to the parser."""
    command = commands.add_parser(
        "convert",
        help="convert weights to a safetensors file",
        description="Reads weights, checks every tensor, and writes a file that zoo.load_model "
        "reads without further arguments, or a file with the parameter names of another library.",
        epilog="example: python -m zoo convert resnet20 resnet20-12fca82f.th resnet20.safetensors",
    )
    command.add_argument("name", metavar="NAME", help="a model name, as printed by list")
    command.add_argument("source", metavar="SOURCE", help=WEIGHTS_HELP)
    command.add_argument("out", metavar="OUT", help="the safetensors file to write")
    command.add_argument(
        "--to",
        metavar="PUBLISHER",
        help=f"write the parameter names of {', '.join(SOURCES)}, or darknet's .weights format",
    )
    command.add_argument("--force", action="store_true", help="overwrite an existing file")


def run_command(arguments: argparse.Namespace) -> int:
    """Runs a command and returns its exit code."""
    if arguments.command == "predict":
        return predict(arguments)
    if arguments.command == "convert":
        lines = convert_weights(
            arguments.name, arguments.source, arguments.out, to=arguments.to, force=arguments.force
        )
        print("\n".join(lines))
    elif arguments.command == "show":
        print(format_card(model_card(arguments.name)))
    else:
        names = list_models(arguments.pattern, task=arguments.task)
        if not names:
            kind = f" for {arguments.task}" if arguments.task else ""
            raise ValueError(
                f"no model{kind} matches {arguments.pattern!r}: see python -m zoo list"
            )
        print(format_listing([model_card(name) for name in names]))
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: words of the command line.

    Returns:
        0, or 2 after one line that describes the mistake.
    """
    parsed = create_parser().parse_args(arguments)
    try:
        return run_command(parsed)
    except (ValueError, OSError) as error:
        print(f"python -m zoo: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
