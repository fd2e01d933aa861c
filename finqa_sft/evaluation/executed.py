"""The steps of a predicted program, each with its result: where a calculation goes astray."""

from __future__ import annotations

from dataclasses import dataclass

from finqa_sft.documents import Question
from finqa_sft.errors import ProgramError
from finqa_sft.formatters.base import Prediction
from finqa_sft.formatters.values import number_text
from finqa_sft.metrics.computed import table_rows
from finqa_sft.programs import Program, Step, execute_program, parse_program
from finqa_sft.programs.plain import reference


@dataclass(frozen=True, slots=True)
class ExecutedStep:
    """A step of the predicted program with its result.

    Attributes:
        text: The step as written: `subtract(5829, 5735)`.
        result: Its result as text, or why there is none.
    """

    text: str
    result: str


def executed_steps(prediction: Prediction, question: Question) -> tuple[ExecutedStep, ...]:
    """The steps of a predicted program, read leniently, each with its result or why it has none.

    A prediction without a program that can be read has no steps.
    """
    try:
        program = parse_program(prediction.program or "", strictness="lenient")
    except ProgramError:
        return ()
    table = table_rows(question.document)
    steps: list[ExecutedStep] = []
    failed: set[int] = set()
    for index, step in enumerate(program.steps):
        missing = sorted(failed.intersection(_references(step)))
        if missing:
            result = f"not computed: #{missing[0]} has no result"
            failed.add(index)
        else:
            try:
                value = execute_program(_alone(program, index), table)
                result = value if isinstance(value, str) else number_text(value)
            except ProgramError as error:
                # What fails here is this step: those that it rests on have results.
                result = str(error).removeprefix(f"step {index} {str(step)[:100]}: ")
                failed.add(index)
        steps.append(ExecutedStep(str(step), result))
    return tuple(steps)


def _references(step: Step) -> list[int]:
    found = map(reference, step.args)
    return [index for index in found if index is not None]


def _alone(program: Program, index: int) -> Program:
    """A program that ends with one step of another; steps that it does not rest on compute 0."""
    needed = {index}
    for earlier in range(index, -1, -1):
        if earlier in needed:
            needed.update(_references(program.steps[earlier]))
    nothing = Step("add", ("0", "0"))
    return Program(
        tuple(
            step if place in needed else nothing
            for place, step in enumerate(program.steps[: index + 1])
        )
    )
