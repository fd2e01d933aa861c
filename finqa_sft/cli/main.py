"""The command `finqa-sft`: finds the verb, runs it, and turns errors into messages."""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import io
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from finqa_sft import __version__
from finqa_sft.errors import FinqaSftError
from finqa_sft.ranks import is_main, rank
from finqa_sft.signals import signal_of

VERBS = {
    "train": "train what a recipe describes",
    "check": "check a recipe without training",
    "preview": "show rows as the model will read them, and what it will learn",
    "stats": "count documents, questions, tokens and what became of the rows",
    "plan": "tell memory, the GPUs that it fits on, steps and time before a run",
    "predict": "answer questions with what a run has trained",
    "evaluate": "answer held-out questions, score the answers and write a report",
    "score": "score predictions of any system against gold answers",
    "ask": "ask a question about a page of your own",
    "merge": "put a run's adapter into its base: one model that transformers loads by itself",
    "show": "show every value of a recipe and where it came from",
    "recipes": "list or copy the recipes that come with the package",
    "plugins": "list all components and who provides them",
    "doctor": "look at versions, devices and what is missing",
    "eject": "print a plain TRL and PEFT script that trains the same",
}
"""The verbs, each a module of this package with `add_arguments(parser)` and `run(arguments)`."""

INTERRUPTED = 128
"""Exit status of a process that a signal ended: this plus the signal's number."""

SECONDS_FOR_THE_MAIN_PROCESS = 10.0
"""So long another process waits with an error, which the main one mostly has too."""

_NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def entry() -> None:
    """Run the command line and exit with its status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character shows a question mark.
            stream.reconfigure(errors="replace")
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run one verb.

    Args:
        argv: Arguments without the program's name. Where the first is no verb but a recipe, the
            verb is `train`.

    Returns:
        0 if all went well, 2 for input to be mended, 1 for a run that failed, 128 plus a signal's
        number for one that the signal ended.
    """
    try:
        status = _run(list(argv))
        # What is still in the buffer may not find room either.
        sys.stdout.flush()
        return status
    except FinqaSftError as error:
        _complain(str(error))
        return error.exit_status
    except KeyboardInterrupt as interruption:
        if is_main():
            _complain("; ".join(["interrupted", *map(str, interruption.args)]))
        return INTERRUPTED + signal_of(interruption)
    except BrokenPipeError:
        # The reader of our output went away (`| head`); there is nobody to tell.
        _discard_output()
        return INTERRUPTED + signal.SIGPIPE
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        _complain(f"{where}cannot write: {error.strerror}; make room, or write elsewhere")
        _discard_output()
        return FinqaSftError.exit_status


def _discard_output() -> None:
    """Let what is still buffered for the standard output go nowhere at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(argv: list[str]) -> int:
    """Find the verb and run it."""
    if argv and argv[0] not in VERBS and not argv[0].startswith("-"):
        if not _looks_like_recipe(argv[0]):
            _complain(_no_such_verb(argv[0]))
            return FinqaSftError.exit_status
        argv.insert(0, "train")
    parser = argparse.ArgumentParser(
        prog="finqa-sft",
        description="Fine-tune language models on financial documents.",
        epilog="A recipe in place of the verb trains it: finqa-sft quickstart trainer.max_steps=10",
    )
    parser.add_argument("--version", action="version", version=f"finqa_sft {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    modules: dict[str, ModuleType] = {}
    for verb, summary in VERBS.items():
        subparser = verbs.add_parser(verb, help=summary, description=summary)
        if argv and argv[0] == verb:
            modules[verb] = importlib.import_module(f"finqa_sft.cli.{verb}")
            modules[verb].add_arguments(subparser)
    # argparse takes no positional arguments after an option of a list of them (CPython #59317);
    # overrides may stand anywhere.
    arguments, rest = parser.parse_known_args(argv)
    # An override with dashes is told so beside the recipe's other problems.
    options = [word for word in rest if word.startswith("-") and "=" not in word]
    if options or (rest and "overrides" not in arguments):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return int(modules[arguments.verb].run(arguments))


def _looks_like_recipe(word: str) -> bool:
    """Whether a first argument names a recipe: a path, or the bare name of a shipped one."""
    from finqa_sft.recipe.shipped import shipped_recipes

    path = Path(word)
    return path.suffix in (".yaml", ".yml") or path.exists() or word in shipped_recipes()


def _no_such_verb(word: str) -> str:
    from finqa_sft.recipe.shipped import shipped_recipes

    near = difflib.get_close_matches(word, [*VERBS, *shipped_recipes()], n=1)
    hint = f"did you mean {near[0]}?" if near else f"verbs are {', '.join(VERBS)}"
    return f"no verb or recipe {word!r}; {hint}"


def _complain(message: str) -> None:
    """Print an error once, whichever of several processes it ends.

    What ends one mostly ends all, and the launcher ends those that are left when the first is gone.
    So the others wait: one that is still there after a while has an error of its own.
    """
    if not is_main():
        time.sleep(SECONDS_FOR_THE_MAIN_PROCESS)
        message = f"process {rank()}: {message}"
    # In one piece: processes share the terminal.
    sys.stderr.write(f"{message}\n")
