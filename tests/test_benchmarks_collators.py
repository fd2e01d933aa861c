"""The benchmark of collators: a tiny one gives what its documentation says."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT
from runs import write_recipe

RECIPE = """\
model:
  factory: lora
  lora:
    r: 4
data:
  sources:
    - reader: filings
      pages: 4
      length: short
      difficulty: easy
      questions_per_page: 2
formatter:
  name: program
  system: Answer.
collator:
  name: shared_context
  tokens_per_batch: 512
trainer:
  gradient_accumulation_steps: 2
  gradient_checkpointing: false
"""

SPREAD = {"median", "lowest", "lower_quartile", "upper_quartile", "highest"}


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    """The script, which finds its neighbours as it does when it is run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tests" / "benchmarks"))
        import collators

        yield collators


def measured(script: ModuleType, folder: Path, *words: str, recipe: str = RECIPE) -> dict[str, Any]:
    """What the script writes, with its legs in this process."""
    from collators_leg import run

    out = folder / "out.json"
    arguments = [str(write_recipe(folder, recipe)), *words, "--warm-up", "1", "--out", str(out)]
    script.main(arguments, run=run)
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def result(
    script: ModuleType, tiny: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("benchmark")
    legs = ("--only", "stock_padded,stock_bfd,shared_context")
    return measured(script, folder, *legs, "--pairs", "2", "--documents", "2", "--profile")


def test_every_leg_sees_all_questions_of_the_chosen_documents(result: dict[str, Any]) -> None:
    chosen = result["questions"]["chosen"]
    assert chosen["documents"] == 2
    assert chosen["token_ratio"] > 1.5
    assert list(result["legs"]) == ["stock_padded", "stock_bfd", "shared_context"]
    for name, leg in result["legs"].items():
        batches = leg["batches"]
        assert batches["questions_a_step"] * batches["steps"] == pytest.approx(
            chosen["questions"], abs=0.1
        )
        shared = name == "shared_context"
        expected = chosen["tokens_as_trees" if shared else "tokens_as_one_row_a_question"]
        assert batches["tokens"] == expected
        assert batches["tokens_of_the_largest_batch"] <= batches["tokens_with_padding"]
        assert leg["attention"] == ("shared_context" if shared else "sdpa")


def test_each_figure_has_its_median_and_spread_and_each_turn_is_kept(
    result: dict[str, Any],
) -> None:
    assert result["pairs"] == len(result["turns"]) == 2
    for name, leg in result["legs"].items():
        for figure in (
            "seconds",
            "questions_per_second",
            "questions_per_processor_second",
            "tokens_per_second",
            "supervised_per_second",
            "building_share",
        ):
            assert set(leg[figure]) == SPREAD
            turns = sorted(turn[name][figure] for turn in result["turns"])
            assert leg[figure]["lowest"] == pytest.approx(turns[0], rel=1e-4)
            assert leg[figure]["median"] == pytest.approx(sum(turns) / 2, rel=1e-4)
        assert ("arrange_seconds" in leg) == (name not in ("stock_padded", "stock_bfd"))
        assert 0 < leg["building_share"]["median"] < 1


def test_ratios_are_taken_turn_by_turn(result: dict[str, Any]) -> None:
    ratios = result["ratios"]["shared_context / stock_padded"]["questions_per_second"]
    by_turn = [
        turn["shared_context"]["questions_per_second"]
        / turn["stock_padded"]["questions_per_second"]
        for turn in result["turns"]
    ]
    assert ratios["lowest"] == pytest.approx(min(by_turn), rel=1e-4)
    assert ratios["highest"] == pytest.approx(max(by_turn), rel=1e-4)
    assert not any(name.startswith("stock") for name in result["ratios"])


def test_all_legs_have_the_same_loss_and_gradients_for_the_same_questions(
    result: dict[str, Any],
) -> None:
    step = result["same_step"]
    assert step["compared_with"] == "stock_padded"
    assert step["questions"] > 1
    assert len(step["losses"]) == 3
    assert max(step["loss_differences"].values()) < 5e-6
    assert max(step["gradient_differences_to_the_largest"].values()) < 1e-4


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux alone")
def test_the_peak_of_memory_is_what_training_takes(result: dict[str, Any]) -> None:
    leg = result["legs"]["shared_context"]
    assert leg["peak_memory_bytes"]["lowest"] > 0
    assert leg["memory_before_bytes"]["lowest"] > 2**26
    assert result["peak_memory_is"].startswith("peak resident memory")


def test_goals_are_neither_met_nor_missed_with_fewer_than_seven_pairs(
    result: dict[str, Any],
) -> None:
    assert len(result["goals"]) == 3
    for goal in result["goals"]:
        assert goal["met"] is None
        assert goal["why_null"] == "2 of 7 pairs"


def test_a_goal_that_is_missed_is_said_to_be(script: ModuleType) -> None:
    from collators_result import goals

    def leg(speed: float, memory: float, building: float) -> dict[str, list[float]]:
        return {
            "seconds": [1.0] * 7,
            "questions_per_second": [speed] * 7,
            "peak_memory_bytes_a_token": [memory] * 7,
            "building_share": [building] * 7,
        }

    plan = {"questions": {"chosen": {"token_ratio": 4.0}}}
    found = goals({"stock_padded": leg(1, 100, 0.001), "shared_context": leg(3.3, 104, 0.03)}, plan)
    assert [goal["met"] for goal in found] == [False, True, False]
    assert [goal["wanted"] for goal in found] == ["at least 3.4", "at most 1.05", "at most 0.02"]
    assert [goal["value"] for goal in found] == [3.3, 1.04, 0.03]
    # Stock TRL is what counts, where it was measured.
    legs = {
        "padded": leg(1, 50, 0),
        "stock_padded": leg(1, 100, 0),
        "shared_context": leg(4, 104, 0),
    }
    _, memory, _ = goals(legs, plan)
    assert (memory["value"], memory["met"]) == (1.04, True)
    assert memory["goal"].startswith("peak memory of shared_context over stock padded, each by")


def test_the_profile_tells_products_from_other_operators(result: dict[str, Any]) -> None:
    profile = result["profile"]
    assert 0 < profile["matrix_products"] < 1
    assert len(profile["others"]) == 10
    assert any(one["operator"] == "aten::mm" for one in profile["products"])
    assert not any("attention" in one["operator"] for one in profile["others"])
    shares = [one["share"] for one in profile["others"]]
    assert shares == sorted(shares, reverse=True)


def test_operations_are_those_of_the_true_products(script: ModuleType, tiny: Path) -> None:
    from measuring import products
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny).requires_grad_(False)
    layer = 2 * 192 * 192 + 2 * 192 * 64 + 3 * 192 * 512
    tokens, supervised, pairs = 10, 3, 55
    by_hand = 4 * 4 * layer * tokens + 4 * 192 * model.vocab_size * supervised
    by_hand += 12 * 4 * 6 * 32 * pairs
    assert products(model, tokens, supervised, pairs) == by_hand


def test_a_leg_runs_in_a_process_of_its_own_and_a_recipe_for_padded_rows_too(
    script: ModuleType, tiny: Path, tmp_path: Path
) -> None:
    recipe = RECIPE.replace("name: shared_context\n  tokens_per_batch: 512", "name: padded")
    modes: list[str] = []

    def run(plan: Path, name: str, mode: str) -> dict[str, Any]:
        from collators_leg import run as run_here

        modes.append(mode)
        alone = (name, mode) == ("flattened", "time")
        found: dict[str, Any] = (script.in_a_process if alone else run_here)(plan, name, mode)
        return found

    out = tmp_path / "out.json"
    words = ["trainer.per_device_train_batch_size=2", "--only", "padded,flattened"]
    words += ["--pairs", "1", "--questions", "4", "--warm-up", "1", "--out", str(out)]
    script.main([str(write_recipe(tmp_path, recipe)), *words], run=run)
    found = json.loads(out.read_text(encoding="utf-8"))
    assert modes == ["check", "check", "time", "time"]
    assert found["tokens_per_batch"] == 4096
    assert found["overrides"] == ["trainer.per_device_train_batch_size=2"]
    assert found["same_step"]["compared_with"] == "padded"
    assert found["same_step"]["loss_differences"]["flattened"] < 5e-6
    assert found["goals"] == []


def test_without_its_data_nothing_is_measured(
    script: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "ROOT", Path("/nowhere/checkout"))
    with pytest.raises(SystemExit) as ended:
        script.main(["--data", "tatqa_dev"])
    assert ended.value.code == 0
    said = "nothing is measured: --data tatqa_dev needs tatqa/dev.json in ../shared/data\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give a recipe, or --data"),
        (["a.yaml", "--data", "tatqa_dev"], "give a recipe, or --data"),
        (
            ["a.yaml", "--only", "padded,trees"],
            "no leg trees; there are stock_padded, stock_bfd, padded, flattened, shared_context",
        ),
        (
            ["a.yaml", "--steps", "2", "--documents", "3"],
            "give one of --documents, --questions and --steps",
        ),
        (
            ["a.yaml", "--only", "padded", "--profile"],
            "--profile looks at shared_context, which --only leaves out",
        ),
    ],
)
def test_a_command_line_that_cannot_be_meant_is_refused(
    script: ModuleType, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        script.main(words)
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: {said}")


def test_legs_that_see_other_questions_are_refused(script: ModuleType) -> None:
    from collators_result import require_the_same_questions

    plan = {"questions": {"chosen": {"questions": 4, "supervised_tokens": 40}}}
    turn = {"stock_bfd": {"seen": {"questions": 4, "supervised": 39}}}
    with pytest.raises(ValueError, match="the leg stock_bfd saw 4 questions with 39 supervised"):
        require_the_same_questions(plan, [turn])
