from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finqa_sft.documents import SCALES
from finqa_sft.errors import DataError
from finqa_sft.evaluation.predictions import (
    Predicted,
    prediction_line,
    prediction_of_line,
    read_predictions,
)
from finqa_sft.evaluation.submissions import Submission
from finqa_sft.formatters.base import Prediction

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
PREDICTED = st.builds(
    Predicted,
    id=st.text(min_size=1, max_size=12),
    prediction=st.builds(
        Prediction,
        text=st.text(),
        answer=st.none() | st.text(),
        program=st.none() | st.text(),
        scale=st.sampled_from(SCALES),
        evidence=st.lists(st.text(), max_size=3).map(tuple),
    ),
    tokens=st.none() | st.integers(0, 10**6),
    finished=st.booleans(),
    problem=st.text(),
    left_out=st.integers(0, 99),
    samples=st.lists(st.text(), max_size=3).map(tuple),
    votes=st.integers(1, 9),
    submission=st.none()
    | st.builds(Submission, kind=st.just("programs"), value=st.lists(st.text()) | st.text())
    | st.builds(Submission, kind=st.just("answers"), value=st.lists(JSON, min_size=2, max_size=2)),
)


def read(folder: Path, content: str | bytes, name: str = "p.json") -> Any:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_predictions(path)


def refusal(folder: Path, content: str | bytes) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, content)
    return str(caught.value).replace(str(folder / "p.json"), "p.json")


@given(predicted=PREDICTED)
def test_a_written_line_is_read_back(predicted: Predicted) -> None:
    line = prediction_line(predicted)
    assert "\n" not in line
    assert prediction_of_line(line) == predicted


@given(several=st.lists(PREDICTED, min_size=1, max_size=4, unique_by=lambda one: one.id))
def test_a_written_file_is_read_back(
    several: list[Predicted], tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = "".join(prediction_line(one) + "\n" for one in several)
    found = read(tmp_path_factory.mktemp("lines"), text)
    assert list(found.predictions.values()) == several
    assert (found.duplicates, found.entries) == ((), len(several))


def test_a_line_holds_no_nan() -> None:
    predicted = Predicted(
        id="a", prediction=Prediction(""), submission=Submission("answers", [float("nan"), ""])
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        prediction_line(predicted)


def test_text_is_written_as_it_is() -> None:
    line = prediction_line(Predicted(id="a", prediction=Prediction("12 €", answer="12 €")))
    assert "12 €" in line


def test_official_programs_are_read_as_tokens_and_as_text(tmp_path: Path) -> None:
    tokens = ["table_sum(", "net sales (loss)", "none", ")", "EOF"]
    found = read(
        tmp_path,
        json.dumps([{"id": "a", "predicted": tokens}, {"id": "b", "predicted": "add(1, 2)"}]),
    ).predictions
    assert found["a"].prediction.program == "table_sum(net sales (loss), none)"
    assert found["a"].submission == Submission("programs", tokens)
    assert found["b"].prediction == Prediction("add(1, 2)", program="add(1, 2)")


def test_a_lone_number_is_an_answer_and_no_program(tmp_path: Path) -> None:
    content = json.dumps([{"id": "Double_A", "turn": 1, "predicted": [" 93", "EOF"]}])
    found = read(tmp_path, content).predictions["Double_A_1"]
    assert (found.prediction.answer, found.prediction.program) == (" 93", None)
    assert found.submission == Submission("programs", [" 93", "EOF"])


def test_no_program_says_nothing(tmp_path: Path) -> None:
    found = read(tmp_path, '[{"id": "a", "predicted": null}]').predictions["a"]
    assert found == Predicted(id="a", prediction=Prediction(""))


@pytest.mark.parametrize(
    ("value", "answer", "scale"),
    [
        (["12", "million"], "12", "million"),
        ([12.5, "percent"], "12.5", "percent"),
        ([["a", "b"], ""], "a | b", ""),
        ([[1, 2.5], None], "1 | 2.5", ""),
        ([None, ""], None, ""),
        (["5", "in thousands"], "5", ""),
        ([True, []], "true", ""),
    ],
)
def test_official_answers_are_kept_as_they_were_handed_in(
    value: list[Any], answer: str | None, scale: str, tmp_path: Path
) -> None:
    found = read(tmp_path, json.dumps({"u": value, "id": ["x", ""]})).predictions["u"]
    assert found.submission == Submission("answers", value)
    assert (found.prediction.answer, found.prediction.scale) == (answer, scale)


def test_an_answer_that_is_no_text_is_kept_too(tmp_path: Path) -> None:
    found = read(tmp_path, '{"id": 7, "answer": [3, "x"], "scale": "million"}').predictions["7"]
    assert found.prediction.answer == "3 | x"
    assert found.submission == Submission("answers", [[3, "x"], "million"])


def test_text_alone_is_the_answer(tmp_path: Path) -> None:
    lines = '{"id": "a", "text": "5.2"}\n\n{"id": "b", "text": "none", "answer": null}\n'
    found = read(tmp_path, lines).predictions
    assert found["a"].prediction == Prediction("5.2", answer="5.2")
    assert found["b"].prediction == Prediction("none")


def test_lines_may_stand_in_a_list_and_other_keys_are_passed_over(tmp_path: Path) -> None:
    content = '\ufeff[{"id": "a", "answer": "5", "model": {"name": "x"}}]'
    assert read(tmp_path, content).predictions["a"].prediction == Prediction("5", "5")


def test_of_repeated_ids_the_first_counts(tmp_path: Path) -> None:
    lines = "".join(f'{{"id": "a", "answer": "{n}"}}\n' for n in range(3))
    found = read(tmp_path, lines)
    assert (found.duplicates, found.entries) == (("a",), 3)
    assert found.predictions["a"].prediction.answer == "0"
    found = read(tmp_path, '{"u": ["1", ""], "u": ["2", ""]}')
    assert (found.duplicates, found.entries) == (("u",), 2)
    assert found.predictions["u"].prediction.answer == "1"


FORMATS = (
    "a JSON object a line with 'id' and 'answer' or 'program', a list of such objects, FinQA's "
    "list of {'id', 'predicted'}, or TAT-QA's {uid: [answer, scale]}"
)
SAYS_NOTHING = "says nothing to its question"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "p.json: an empty file; was it written or downloaded completely?"),
        ("\n  \n", "p.json: only white space; was it written to its end?"),
        ("[]", f"p.json: no predictions in it; expected {FORMATS}"),
        ("{}", "p.json: line 1: 'id': missing; expected the id of the question"),
        ("5", f"p.json: begins with '5', so it is no JSON object or list; expected {FORMATS}"),
        (
            "id,answer\na,5\n",
            f"p.json: begins with 'id,answer', so it is no JSON object or list; expected {FORMATS}",
        ),
        (
            '{"id": "a", "answer": "5"}\n{"id": "b", "ans',
            "p.json:2:13: not JSON: unterminated string starting at; the file seems cut off: was "
            "it copied, or written to its end?",
        ),
        (
            '{"id": "a", "answer": "5"}\n{"id": "b",}\n{"id": "c", "answer": "5"}\n',
            "p.json:2:12: not JSON: expecting property name enclosed in double quotes; mend it "
            "there",
        ),
        (
            '{"id": "a", "answer": "5"}\n[1]\n',
            "p.json: line 2: a list; expected an object with 'id'",
        ),
        ('[{"Id": "a", "answer": "5"}]', "p.json: row 1: 'id': missing; rename 'Id' to 'id'"),
        (
            '[{"id": true, "answer": "5"}]',
            "p.json: row 1: 'id': true or false; expected text or a number",
        ),
        ('[{"id": "", "answer": "5"}]', "p.json: row 1: 'id': empty; expected text or a number"),
        (
            '[{"id": "a", "anwser": "5"}]',
            f"p.json: row 1: {SAYS_NOTHING}; did you mean 'answer'?",
        ),
        (
            '[{"id": "a"}]',
            f"p.json: row 1: {SAYS_NOTHING}; expected answer, program, text or predicted",
        ),
        (
            '[{"id": "a", "answer": "5", "answer": "6"}]',
            "p.json: row 1: 'answer': stands twice; leave one out",
        ),
        (
            '[{"id": "a", "answer": "5", "scale": "millions"}]',
            "p.json: row 1: 'scale': 'millions'; expected thousand, million, billion, percent, or "
            "an empty text",
        ),
        (
            '[{"id": "a", "program": 5}]',
            "p.json: row 1: 'program': a number; expected text or null",
        ),
        (
            '[{"id": "a", "answer": "5", "votes": 0}]',
            "p.json: row 1: 'votes': 0; expected a whole number from 1",
        ),
        (
            '[{"id": "a", "answer": "5", "finished": "yes"}]',
            "p.json: row 1: 'finished': text; expected true or false",
        ),
        (
            '[{"id": "a", "answer": "5", "evidence": "Net sales"}]',
            "p.json: row 1: 'evidence': text; expected a list of texts",
        ),
        (
            '[{"id": "a", "turn": "1", "predicted": "5"}]',
            "p.json: row 1: 'turn': text; expected a whole number, counted from 0",
        ),
        (
            '[{"id": "a", "predicted": 5}]',
            "p.json: row 1: 'predicted': a number; expected a list of tokens, or text",
        ),
        (
            '[{"id": "a", "predicted": ["add(", 5]}]',
            "p.json: row 1: 'predicted': a number in the list of tokens; expected text",
        ),
        (
            '[{"id": "a", "submitted": 5}]',
            "p.json: row 1: 'submitted': expected an object with 'kind', programs or answers, "
            "and a 'value' as its files have it",
        ),
        (
            '{"u": ["1", ""], "v": "1"}',
            "p.json: the entry 'v': text; expected [answer, scale]; the formats are " + FORMATS,
        ),
        (
            '{"u": ["1"]}',
            "p.json: the entry 'u': a list of 1; expected [answer, scale]; the formats are "
            + FORMATS,
        ),
        (
            '[{"id": "a", "answer": "\\ud800"}]',
            "p.json:1: half a surrogate pair in a text; expected valid Unicode",
        ),
        (
            '[{"id": "a", "answer": ' + "9" * 5000 + "}]",
            "p.json:1: a number with too many digits to be read",
        ),
        ("[" * 100_000, "p.json:1: lists or objects nested too deeply"),
        (
            '{"uid": "a", "answer": "5"}',
            "p.json: line 1: 'id': missing; rename 'uid' to 'id'",
        ),
        (
            b"PK\x03\x04rest",
            "p.json: a ZIP archive or an Excel workbook; unpack it, or save the sheet as CSV",
        ),
        (
            b'{"id": "\xff"}',
            "p.json: not UTF-8 text (byte 8 is 0xff); save the file with the encoding UTF-8",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_place_and_the_remedy(
    content: str | bytes, message: str, tmp_path: Path
) -> None:
    assert refusal(tmp_path, content) == message


def test_lists_within_lists_are_read_however_deep_they_are(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text('{"a": [[["x", ["y"]], "z"], ""], "b": [' + "[" * 900 + "]" * 900 + ', ""]}')
    found = read_predictions(path).predictions
    assert (found["a"].prediction.answer, found["b"].prediction.answer) == ("x | y | z", None)


def test_a_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder, not a file; name the files in it"):
        read_predictions(tmp_path)
    with pytest.raises(DataError, match="no such file; check name and folder"):
        read_predictions(tmp_path / "p.json")


def test_a_torn_line_is_an_error_of_its_own() -> None:
    line = prediction_line(Predicted(id="a", prediction=Prediction("5", "5")))
    for end in range(1, len(line)):
        with pytest.raises(DataError):
            prediction_of_line(line[:end])


@given(
    content=st.binary(max_size=60)
    | st.text(max_size=60).map(str.encode)
    | JSON.map(lambda value: json.dumps(value).encode())
)
def test_any_file_is_read_or_refused(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with suppress(DataError):
        read(tmp_path_factory.mktemp("any"), content)
