"""Writes what is generated: reference pages, tables of measured results, and figures.

python docs/generate.py

Recipe keys come from the option models, commands from their own help, results from the JSON files
in `docs/results`, figures from what the code computes for a small example (`docs/figures.py`).

The pages depend on this package alone: built-in components, one width of the help, and of the
trainer's fields only those that the package owns or sets.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from figures import shared_context

from finqa_sft.cli.main import VERBS, main
from finqa_sft.plugins.manager import Plugins
from finqa_sft.plugins.records import CollatorRecord
from finqa_sft.recipe.schema import SLOTS, ComponentSection, Sections
from finqa_sft.recipe.trainer_fields import REFUSED
from finqa_sft.training.arguments import QUIET

Schema = Mapping[str, Any]

FOLDER = Path(__file__).resolve().parent / "reference"
COLUMNS = 88
RESULTS = Path(__file__).resolve().parent / "results"
RECIPES = Path(__file__).resolve().parent / "recipes"
TRUNCATION = Path(__file__).resolve().parent / "explanation" / "truncation.md"
SPEED_BEGINS = "<!-- speed: written by docs/generate.py -->\n"
SPEED_ENDS = "<!-- end of speed -->\n"
MERGE = Path(__file__).resolve().parent / "how-to" / "merge.md"
NEARNESS_BEGINS = "<!-- nearness: written by docs/generate.py -->\n"
NEARNESS_ENDS = "<!-- end of nearness -->\n"
GPUS = Path(__file__).resolve().parent / "how-to" / "many-gpus.md"
RESUME = Path(__file__).resolve().parent / "how-to" / "resume.md"
KILLS_BEGINS = "<!-- kills: written by docs/generate.py -->\n"
KILLS_ENDS = "<!-- end of kills -->\n"
MEMORY_BEGINS = "<!-- memory: written by docs/generate.py -->\n"
MEMORY_ENDS = "<!-- end of memory -->\n"
TRUNCATION_BEGINS = "<!-- truncation: written by docs/generate.py -->\n"
TRUNCATION_ENDS = "<!-- end of truncation -->\n"
TOKENS = Path(__file__).resolve().parent / "explanation" / "shared-context.md"
TOKENS_BEGINS = "<!-- tokens: written by docs/generate.py -->\n"
TOKENS_ENDS = "<!-- end of tokens -->\n"
FIGURE = Path(__file__).resolve().parent / "assets" / "shared_context.svg"
TRIAL_BEGINS = "<!-- trial: written by docs/generate.py -->\n"
TRIAL_ENDS = "<!-- end of trial -->\n"
GENERATED = "<!-- Written by docs/generate.py; change what it reads, not this file. -->"

RECIPE_INTRO = """\
One YAML file is one run. `data` and `formatter` must be there; what is left out has the default
below. Where a section names a component, the component's own options stand beside that key.

Only `true` and `false` are booleans, and `2e-4` is a number. Paths are relative to the recipe file.
An override on the command line, `key.path=value`, is read in the same way; a number in its path
counts list items from 0 (`data.sources.0.files=train.json`), and its paths are relative to the
current folder. The same as a JSON schema, with the components of installed plugins and the fields
of the installed trainer: `finqa-sft show --schema`."""

TRAINER_INTRO = """\
Every field with its default stands in the output of `finqa-sft show RECIPE`; what it does is in
[TRL's documentation](https://huggingface.co/docs/trl/sft_trainer#trl.SFTConfig). A run starts
from the trainer's own defaults, changed in this order: the first table, an evaluation every epoch
if anything is held out, what the device needs (`bf16`, `fp16`, `use_cpu`), the recipe, and what the
collator needs."""

CLI_INTRO = """\
`finqa-sft` and `python -m finqa_sft` are the same; under `accelerate launch` write `-m finqa_sft`.

| exit status | |
|---|---|
| 0 | all went well |
| 1 | the run failed |
| 2 | something is to be mended first: the recipe, the data, the base, the machine |
| 130, 143 | Ctrl-C or SIGTERM ended the run |

| variable | |
|---|---|
| `FINQA_SFT_CACHE` | folder of what is built once (default: `~/.cache/finqa_sft`) |
| `FINQA_SFT_PLUGINS` | whose plugins are loaded, comma-separated; empty: none; unset: all |
| `FINQA_SFT_STRICT_PLUGINS` | `1`: a broken plugin is an error instead of being left out |"""


def pages() -> dict[Path, str]:
    """The text of each generated page, by its path."""
    references = {FOLDER / "recipe.md": recipe_page(), FOLDER / "cli.md": cli_page()}
    tables = {
        TRUNCATION: truncation_page(),
        TOKENS: tokens_page(),
        GPUS: many_gpus_page(),
        RESUME: resume_page(),
        MERGE: merge_page(),
    }
    return references | trial_pages() | tables | {FIGURE: shared_context()}


def trial_pages() -> dict[Path, str]:
    """The recipes' pages, with the results of their trials between two marks."""
    result = json.loads((RESULTS / "recipe_trials_cpu.json").read_text(encoding="utf-8"))
    found = {}
    for recipe, trial in result["trials"].items():
        path = RECIPES / f"{recipe}.md"
        found[path] = _between(path, TRIAL_BEGINS, _trial(result, trial), TRIAL_ENDS)
    return found


def truncation_page() -> str:
    """The page on truncation, with the counts of rows here and in stock TRL."""
    result = json.loads((RESULTS / "truncation.json").read_text(encoding="utf-8"))
    parts = [
        f"Tokenizer `{result['tokenizer']}`, TRL {result['versions']['trl']} "
        "([record](../results/truncation.json)).\n"
    ]
    for reader, counted in result["data"].items():
        parts.append(_truncation(reader, counted))
    return _between(TRUNCATION, TRUNCATION_BEGINS, "\n".join(parts), TRUNCATION_ENDS)


def tokens_page() -> str:
    """The page on shared context, with the tokens of real files in each layout."""
    result = json.loads((RESULTS / "shared_context_tokens.json").read_text(encoding="utf-8"))
    lines = [
        "| file | recipe | tokenizer | questions | documents | tokens apart | tokens shared "
        "| times fewer | questions a row |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for n in result["data"]:
        lines.append(
            f"| `{n['file']}` | `{n['recipe']}` | `{n['tokenizer']}` | {n['questions']:,} "
            f"| {n['documents']:,} | {n['tokens_apart']:,} | {n['tokens_in_rows']:,} "
            f"| {n['tokens_apart'] / n['tokens_in_rows']:.2f} | {n['questions_a_row']} |"
        )
        if whole := n.get("in_the_whole_set"):
            notes.append(
                f"`{n['file']}` is a sample, with {n['questions'] / n['documents']:.1f} questions "
                f"a document, where the whole set has {whole['questions_a_document']}: by the same "
                f"lengths that is {whole['token_ratio']} times fewer tokens and "
                f"{whole['questions_a_row']} questions a row (computed, `{n['tokenizer']}`)."
            )
    text = "\n".join(lines) + "\n\n[Record](../results/shared_context_tokens.json). "
    counted = _between(TOKENS, TOKENS_BEGINS, text + notes[0] + "\n", TOKENS_ENDS)
    before, _, rest = counted.partition(SPEED_BEGINS)
    return before + SPEED_BEGINS + _speed() + SPEED_ENDS + rest.partition(SPEED_ENDS)[2]


def _speed() -> str:
    """What shared context saves in time and memory, as measured on this project's machine."""
    lines = [
        "| questions | model | times fewer tokens | questions/s, to padded | to packing "
        "| peak memory a token, to padded | building of batches |",
        "|---|---|---|---|---|---|---|",
    ]
    records = []
    for name in ("tatqa", "finqa"):
        file = f"collators_{name}_cpu.json"
        result = json.loads((RESULTS / file).read_text(encoding="utf-8"))
        chosen, ratios = result["questions"]["chosen"], result["ratios"]
        padded = ratios["shared_context / stock_padded"]
        packed = ratios["shared_context / stock_bfd"]
        share = result["legs"]["shared_context"]["building_share"]["median"]
        lines.append(
            f"| {chosen['questions']} of `{result['data']['file']}` on {chosen['documents']} "
            f"documents | Llama, {result['trained_model']['parameters'] / 1e6:.0f}M, LoRA "
            f"| {chosen['token_ratio']:.2f} | {_spread(padded['questions_per_second'])} "
            f"| {_spread(packed['questions_per_second'])} "
            f"| {_spread(padded['peak_memory_bytes_a_token'])} | {share:.2%} |"
        )
        records.append(f"[record](../results/{file})")
    return (
        "\n".join(lines)
        + f"\n\nMedian, lowest and highest ratio of {result['pairs']} turns, in which the legs "
        f"follow each other ({', '.join(records)}); other programs used the other core. "
        "Peak memory is divided by the tokens of the largest batch, as batches are not equal.\n"
    )


def _spread(ratio: Mapping[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})"


def many_gpus_page() -> str:
    """The page on many GPUs, with what bases of three sizes are predicted to need."""
    result = json.loads((RESULTS / "memory_predicted.json").read_text(encoding="utf-8"))
    plans = result["plans"]
    ways = list(plans[0]["total"])
    header = " | ".join(f"{plan['base']} {plan['factory']}" for plan in plans)
    lines = [f"| configuration | {header} |", "|---" * (len(plans) + 1) + "|"]
    for way in ways:
        cells = " | ".join(f"{plan['total'][way] / 2**30:.1f}" for plan in plans)
        lines.append(f"| `{way}` | {cells} |")
    for way in ("zero3", "fsdp"):
        loading = " | ".join(f"{plan['loading'][way] / 2**30:.1f}" for plan in plans)
        lines.append(f"| `{way}`, while the base is loaded | {loading} |")
    text = (
        f"GiB a GPU of {result['gpus']}, with recipes `qlora_7b` (qlora, lora) and `full_1b` "
        f"(full) at {plans[0]['tokens_per_batch']:,} tokens a batch, an allowance included that is "
        "assumed "
        "([record](../results/memory_predicted.json), `tests/benchmarks/memory_predicted.py`).\n\n"
    )
    return _between(GPUS, MEMORY_BEGINS, text + "\n".join(lines) + "\n", MEMORY_ENDS)


def resume_page() -> str:
    """The page on resuming, with what became of runs that were killed."""
    result = json.loads((RESULTS / "kills.json").read_text(encoding="utf-8"))
    lines = [
        "| run | processes | kills | while it saved | steps done again (median, most) "
        "| losses, to those of the unbroken run | lost |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in result["kinds"]:
        again, difference = kind["steps_done_again"], kind["largest_loss_difference"]
        same = "equal bit for bit" if difference == 0 else f"within {difference:.0e}"
        lines.append(
            f"| {kind['kind'].partition(', one')[0]} | {kind['processes']} | {len(kind['kills'])} "
            f"| {kind['while_saving']} | {again['median']:g}, {again['most']} | {same} "
            f"| {len(kind['lost'])} |"
        )
    total = f"| all | | {result['kills']} | {result['while_a_checkpoint_was_written']} | | |"
    lines.append(f"{total} {result['lost']} |")
    return _between(RESUME, KILLS_BEGINS, "\n".join(lines) + "\n", KILLS_ENDS)


def merge_page() -> str:
    """The page on merging, with how near merged models are to what was trained."""
    result = json.loads((RESULTS / "merge_nearness.json").read_text(encoding="utf-8"))
    lines = [
        "| base | weights | dtype | same next token | KL divergence | held-out loss, as trained "
        "| merged |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in result["runs"]:
        for merged in run["merged"]:
            lines.append(
                f"| `{run['base']}` in {run['bits']} bits | {merged['weights']} "
                f"| {merged['dtype']} | {merged['agreement']:.1%} | {merged['divergence']:.1e} "
                f"| {run['held_out_loss']['as_trained']:.4f} | {merged['held_out_loss']:.4f} |"
            )
    return _between(MERGE, NEARNESS_BEGINS, "\n".join(lines) + "\n", NEARNESS_ENDS)


def _truncation(reader: str, counted: Mapping[str, Any]) -> str:
    """What became of the rows of one file at each length."""
    rows = next(iter(counted["lengths"].values()))["trl"]["rows"]
    lines = [
        f"**{reader}**: `{counted['file']}`, {rows} questions, "
        f"formatter `{counted['formatter']}`\n",
        "| `max_length` | | kept | document cut | answer cut | dropped | evidence shown |",
        "|---|---|---|---|---|---|---|",
    ]
    for length, sides in counted["lengths"].items():
        for side, name in (("finqa_sft", "finqa_sft"), ("trl", "TRL")):
            n = sides[side]
            evidence = (
                f"{n['evidence_shown']} of {n['with_evidence']}" if n["with_evidence"] else "–"
            )
            lines.append(
                f"| {length if side == 'finqa_sft' else ''} | {name} | {n['kept']} "
                f"| {n.get('document_cut', '–')} | {n['answer_not_whole']} | {n['dropped']} "
                f"| {evidence} |"
            )
    return "\n".join(lines) + "\n"


def _between(path: Path, begins: str, text: str, ends: str) -> str:
    """A page with another text between two marks."""
    before, _, rest = path.read_text(encoding="utf-8").partition(begins)
    _, _, after = rest.partition(ends)
    return before + begins + text + ends + after


def _trial(result: Mapping[str, Any], trial: Mapping[str, Any]) -> str:
    """What a recipe did with a small base and a few rows."""
    data = trial["data"]["training"]
    overrides = dict(word.split("=", 1) for word in result["overrides"])
    rows = [
        (
            "base",
            f"`{result['base']}`, {trial['model']['parameters'] / 1e6:.0f} million parameters",
        ),
        (
            "data",
            f"`{trial['file']}`: the first {data['questions']} questions, on {data['documents']} "
            f"documents, in rows of up to {overrides['formatter.max_length']} tokens",
        ),
        ("steps", f"{len(trial['losses'])}, 2 questions each"),
        ("trained parameters", f"{trial['model']['trained_parameters']:,}"),
        ("loss, first 5 steps", f"{trial['mean_loss_first_5']:.3f}"),
        ("loss, last 5 steps", f"{trial['mean_loss_last_5']:.3f}"),
    ]
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)])
    return (
        "## A small trial\n\n"
        "The recipe's factory, adapter, formatter and learning rate with a small base and padded "
        "rows on CPU cores ([record](../results/recipe_trials_cpu.json)). It shows that the recipe "
        f"learns from these rows, and says nothing of its own base.\n\n{table}\n"
    )


def recipe_page() -> str:
    """Every key of a recipe, from the models that check it."""
    plugins = Plugins.load({"FINQA_SFT_PLUGINS": ""})
    schema = Sections.model_json_schema()
    parts = ["# Recipe keys", GENERATED, RECIPE_INTRO]
    described: set[type[ComponentSection]] = set()
    for name, node in schema["properties"].items():
        section = _definition(node, schema)
        parts += [f"## `{name}`", _text((section or node)["description"])]
        if name == "trainer":
            parts += list(_trainer(plugins))
        elif section is None:
            parts.append(f"Value: {_words(node)}; default {_default(node)}.")
        else:
            parts += ["A list; keys of its items:"] if "items" in node else []
            parts.append(_table(section, schema))
        for key, model in SLOTS.items():
            if key[0] != name:
                continue
            place = ".".join(key).replace(".[]", "[]")
            if model in described:
                parts.append(f"Items of `{place}` are as those of `data.sources[]`.")
                continue
            described.add(model)
            if len(key) > 2:
                own = model.model_json_schema()
                parts += [f"### `{place}`", _text(own["description"]), _table(own, own)]
            parts += _components(plugins, model)
    return "\n\n".join(parts) + "\n"


def _components(plugins: Plugins, section: type[ComponentSection]) -> Iterator[str]:
    """The built-in components of a section, each with its options."""
    components = plugins.components(section.kind)
    if not components:
        yield "None is built in; plugins offer them."
    for component in components:
        schema = component.record.config.model_json_schema()
        yield f"### `{section.name_key}: {component.record.name}`"
        yield f"`{component.record.name}`: {_text(component.record.summary)}."
        if schema["properties"]:
            yield _table(schema, schema)


def _trainer(plugins: Plugins) -> Iterator[str]:
    """What the package does about the fields of `SFTConfig`."""
    yield TRAINER_INTRO
    yield _rows(("set first", "to"), [(name, _code(value)) for name, value in QUIET.items()])
    for component in plugins.components("collators"):
        record = component.record
        assert isinstance(record, CollatorRecord)
        rows = [(name, _code(value)) for name, value in record.sft_args.items()]
        yield _rows((f"set by collator `{record.name}`", "to"), rows)
    yield _rows(("refused", "instead"), list(REFUSED.items()))


def _table(section: Schema, schema: Schema) -> str:
    """A table of a section's keys, those of sections inside it among them."""
    lines = ["| key | value | default | |", "|---|---|---|---|"]
    for key, node, required in _keys(section, schema, ""):
        default = "required" if required else _default(node)
        lines.append(f"| `{key}` | {_words(node)} | {default} | {_text(node['description'])} |")
    return "\n".join(lines)


def _keys(section: Schema, schema: Schema, prefix: str) -> Iterator[tuple[str, Schema, bool]]:
    for name, node in section["properties"].items():
        inner = _definition(node, schema) if "$ref" in node else None
        if inner is None:
            yield prefix + name, node, name in section.get("required", ())
        else:
            yield from _keys(inner, schema, f"{prefix}{name}.")


def _definition(node: Schema, schema: Schema) -> Schema | None:
    """The section that a property is, or that its items are."""
    reference = node.get("$ref") or node.get("items", {}).get("$ref")
    if reference is None:
        return None
    found: Schema = schema["$defs"][reference.removeprefix("#/$defs/")]
    return found


def _words(node: Schema) -> str:
    """What a value may be, in words."""
    if "anyOf" in node:
        return _listed(word for member in node["anyOf"] for word in _alternatives(member))
    if "const" in node or "enum" in node:
        return _listed(_alternatives(node))
    match node.get("type"):
        case "array" if "$ref" in node["items"]:
            return "list of sections"
        case "array":
            return f"list of {_words(node['items'])}s"
        case "string":
            return "path" if node.get("format") == "path" else "text"
        case "null":
            return "`null`"
        case "boolean":
            return "`true` or `false`"
        case "integer" | "number" as kind:
            return " ".join(["whole number" if kind == "integer" else "number", *_bounds(node)])
        case _:
            return "anything"


def _alternatives(node: Schema) -> list[str]:
    """One word for each literal, or one for the whole type."""
    if "const" in node:
        return [_code(node["const"])]
    if "enum" in node:
        return [_code(value) for value in node["enum"]]
    return [_words(node)]


def _listed(words: Iterable[str]) -> str:
    """`a`, `b` or `c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _bounds(node: Schema) -> Iterator[str]:
    words = {
        "minimum": "from",
        "exclusiveMinimum": "above",
        "maximum": "up to",
        "exclusiveMaximum": "below",
    }
    for bound, word in words.items():
        if bound in node:
            yield f"{word} {json.dumps(node[bound])}"


def _default(node: Schema) -> str:
    return _code(node["default"])


def _code(value: object) -> str:
    plain = isinstance(value, str) and "\n" not in value
    return f"`{value if plain else json.dumps(value)}`"


def _rows(header: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    lines = [f"| {header[0]} | {header[1]} |", "|---|---|"]
    return "\n".join(lines + [f"| `{name}` | {text} |" for name, text in rows])


def _text(text: str) -> str:
    """Text on one line of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def cli_page() -> str:
    """Every verb's help, as the command prints it."""
    parts = ["# Commands", GENERATED, CLI_INTRO, _help()]
    for verb in VERBS:
        parts += [f"## `{verb}`", _help(verb)]
        if verb == "recipes":
            parts.append(_help(verb, "copy"))
    return "\n\n".join(parts) + "\n"


def _help(*verb: str) -> str:
    """What `finqa-sft VERB --help` prints, at a fixed width and without colours."""
    printed = io.StringIO()
    fixed = {"COLUMNS": str(COLUMNS), "NO_COLOR": "1", "PYTHON_COLORS": "0"}
    with (
        mock.patch.dict(os.environ, fixed),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        main([*verb, "--help"])
    return f"```text\n{printed.getvalue().strip()}\n```"


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
