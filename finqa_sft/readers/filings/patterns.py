"""Question patterns: what is asked, in which words, and the program that answers it."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from enum import Enum

from finqa_sft.readers.filings import bindings as bind
from finqa_sft.readers.filings.bindings import Binder


class Show(Enum):
    """How a person writes the result."""

    SPAN = "copied from the page"
    FIGURE = "to the last digit of the figures"
    FINER = "to one digit more, but no more than two"
    PERCENT = "as a percentage"
    VERDICT = "as yes or no"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A way to ask about some figures of a section.

    Attributes:
        levels: Initials of the difficulties that it is for.
        find: Finds the figures.
        program: FinQA's program, with slots for the figures; a lone slot is a lookup.
        texts: Wordings.
        show: How a person writes the result.
        bounds: Least and greatest result worth asking for.
    """

    levels: str
    find: Binder
    program: str
    texts: tuple[str, ...]
    _: KW_ONLY
    show: Show = Show.FIGURE
    bounds: tuple[float, float] = (-math.inf, math.inf)


_GROWTH = (-0.8, 1.5)
_SHARE = (0.005, 0.98)

PATTERNS = (
    Pattern("em", bind.tabled, "{a}", (
        "What {was} {row} {at}?",
        "What does the table show for {row} {at}?",
        "What figure is reported for {row} {at}?",
    ), show=Show.SPAN),
    Pattern("emh", bind.told, "{a}", (
        "What {was} {row} {at}?",
        "According to the text, what {was} {row} {at}?",
        "What figure does the text give for {row} {at}?",
    ), show=Show.SPAN),
    Pattern("em", bind.changes, "subtract({new}, {old})", (
        "By how much did {row} change from {y0} to {y1}{in_unit}?",
        "What was the change in {row} from {y0} to {y1}?",
        "What was the net change in {row} between {y0} and {y1}{in_unit}?",
    )),
    Pattern("emh", bind.points, "subtract({new}, {old})", (
        "By how many percentage points did {row} change from {y0} to {y1}?",
        "What was the change in {row} between {y0} and {y1}, in percentage points?",
    )),
    Pattern("em", bind.siblings, "subtract({a}, {b})", (
        "By what amount {was} {row} greater than {other} {at}{in_unit}?",
        "How much larger {was} {row} than {other} {at}?",
    ), bounds=(0, math.inf)),
    Pattern("emh", bind.growths, "subtract({new}, {old}), divide(#0, {old})", (
        "What was the percentage change in {row} from {y0} to {y1}?",
        "By what percentage did {row} change between {y0} and {y1}?",
        "What was the growth rate of {row} from {y0} to {y1}?",
    ), show=Show.PERCENT, bounds=_GROWTH),
    Pattern("em", bind.parts, "add({a}, {b})", (
        "What is the sum of {row} and {other} {at}{in_unit}?",
        "What do {row} and {other} {at} add up to?",
        "What is the combined amount of {row} and {other} {at}{in_unit}?",
    )),
    Pattern("em", bind.flows, "add({old}, {new})", (
        "What is the sum of {row} for {y0} and {y1}{in_unit}?",
        "What did {row} add up to in {y0} and {y1} together?",
    )),
    Pattern("emh", bind.changes, "greater({new}, {old})", (
        "{Was} {row} higher {at1} than {at0}?",
        "Did {row} increase from {y0} to {y1}?",
    ), show=Show.VERDICT),
    Pattern("em", bind.changes, "greater({old}, {new})", (
        "{Was} {row} lower {at1} than {at0}?",
        "Did {row} decrease from {y0} to {y1}?",
    ), show=Show.VERDICT),
    Pattern("em", bind.siblings, "greater({a}, {b})", (
        "{Was} {row} greater than {other} {at}?",
        "{Was} {row} {at} larger than {other}?",
    ), show=Show.VERDICT),
    Pattern("m", bind.flows, "add({old}, {new}), divide(#0, const_2)", (
        "What was the average of {row} for {y0} and {y1}{in_unit}?",
        "What was the mean of {row} in {y0} and {y1}?",
    ), show=Show.FINER),
    Pattern("mh", bind.spans, "add({a}, {b}), add(#0, {c}), divide(#1, const_3)", (
        "What was the average of {row} over the three years from {y0} to {y1}{in_unit}?",
        "On average, how high {was} {row} in the years {y0} through {y1}?",
    ), show=Show.FINER),
    Pattern("mh", bind.rows, "table_average({label}, none)", (
        "What was the average of {row} over all years shown in the table{in_unit}?",
        "What was the mean of {row} over the years {y0} to {y1} in the table?",
    ), show=Show.FINER),
    Pattern("m", bind.flow_rows, "table_sum({label}, none)", (
        "What is the sum of {row} over all years shown in the table{in_unit}?",
        "What did {row} add up to over the years {y0} to {y1}?",
    )),
    Pattern("m", bind.rows, "table_max({label}, none)", (
        "What was the highest figure for {row} in the years shown in the table?",
        "What was the peak of {row} in the years {y0} to {y1}?",
    )),
    Pattern("m", bind.rows, "table_min({label}, none)", (
        "What was the lowest figure for {row} in the years shown in the table?",
        "What was the low point of {row} in the years {y0} to {y1}?",
    )),
    Pattern("mh", bind.shares, "divide({part}, {whole})", (
        "What {was} {row} as a percentage of {total} {at}?",
        "What share of {total} {at} {was} {row}?",
        "As a percentage of {total}, how large {was} {row} {at}?",
    ), show=Show.PERCENT, bounds=_SHARE),
    Pattern("mh", bind.products, "multiply({a}, {b})", (
        "At {other}, what did share repurchases {at} cost{in_unit}?",
        "What amount was spent on share repurchases {at}, going by {other}{in_unit}?",
    )),
    Pattern(
        "h", bind.rows,
        "table_max({label}, none), table_min({label}, none), subtract(#0, #1)", (
            "What is the difference between the highest and the lowest figure for {row} in the "
            "years shown in the table{in_unit}?",
            "How wide was the range of {row} over the years {y0} to {y1}?",
        ),
    ),
    Pattern("mh", bind.told_shares, "divide({part}, {whole})", (
        "What {was} {row} as a percentage of {total} {at}?",
        "Relative to {total}, how large {was} {row} {at}, in percent?",
    ), show=Show.PERCENT, bounds=_SHARE),
    Pattern("mh", bind.mixed_shares, "multiply({part}, const_1000), divide(#0, {whole})", (
        "What {was} {row} as a percentage of {total} {at}?",
        "Relative to {total}, how large {was} {row} {at}, in percent?",
    ), show=Show.PERCENT, bounds=_SHARE),
    Pattern("h", bind.weighty_parts, "add({a}, {b}), divide(#0, {whole})", (
        "What percentage of {total} {at} do {row} and {other} make up together?",
        "What is the combined share of {row} and {other} in {total} {at}?",
    ), show=Show.PERCENT, bounds=_SHARE),
    Pattern("h", bind.weighty_parts, "subtract({whole}, {a}), subtract(#0, {b})", (
        "What would {total} {at} come to without {row} and {other}{in_unit}?",
        "How much of {total} {at} is left after {row} and {other} are taken out?",
    )),
    Pattern(
        "h", bind.share_changes,
        "divide({new}, {new_whole}), divide({old}, {old_whole}), subtract(#0, #1)", (
            "By how many percentage points did {row} as a share of {total} change from {y0} to "
            "{y1}?",
            "What was the change in the share of {row} in {total} from {y0} to {y1}, in percentage "
            "points?",
        ), show=Show.PERCENT, bounds=(-0.5, 0.5),
    ),
    Pattern(
        "h", bind.contributions,
        "subtract({new}, {old}), subtract({new_whole}, {old_whole}), divide(#0, #1)", (
            "What percentage of the change in {total} from {y0} to {y1} was due to {row}?",
            "How much of the change in {total} between {y0} and {y1} did {row} account for, in "
            "percent?",
        ), show=Show.PERCENT, bounds=_SHARE,
    ),
    Pattern(
        "h", bind.spans,
        "subtract({c}, {b}), subtract({b}, {a}), add(#0, #1), divide(#2, const_2)", (
            "What was the average annual change in {row} from {y0} to {y1}{in_unit}?",
            "By how much did {row} change a year, on average, between {y0} and {y1}?",
        ), show=Show.FINER,
    ),
    Pattern(
        "h", bind.spans,
        "subtract({b}, {a}), divide(#0, {a}), subtract({c}, {b}), divide(#2, {b}), add(#1, #3), "
        "divide(#4, const_2)", (
            "What was the average of the annual growth rates of {row} from {y0} to {y1}?",
            "What was the mean of the two yearly percentage changes in {row} between {y0} and "
            "{y1}?",
        ), show=Show.PERCENT, bounds=_GROWTH,
    ),
    Pattern(
        "h", bind.races,
        "subtract({a1}, {a0}), divide(#0, {a0}), subtract({b1}, {b0}), divide(#2, {b0}), "
        "greater(#1, #3)", (
            "In percentage terms, did {row} grow faster than {other} from {y0} to {y1}?",
            "Was the growth rate of {row} higher than that of {other} from {y0} to {y1}?",
        ), show=Show.VERDICT,
    ),
    Pattern(
        "h", bind.repeats,
        "subtract({new}, {old}), divide(#0, {old}), add(#1, const_1), multiply(#2, {new})", (
            "If {row} changed in {next} by the same percentage as from {y0} to {y1}, what would "
            "the figure for {next} be{in_unit}?",
            "Assuming that the growth rate of {row} from {y0} to {y1} continues for another year, "
            "what figure results for {next}?",
        ),
    ),
)  # fmt: skip
