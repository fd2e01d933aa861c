"""Large data: several processes, the cache of encoded rows, and what can end them."""

from __future__ import annotations

import json
import multiprocessing.util
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from transformers import AutoTokenizer

from finqa_sft.cli.main import main
from finqa_sft.encoding import Encoder
from finqa_sft.errors import DataError, HardwareError, PluginError
from finqa_sft.plugins.manager import Plugins
from finqa_sft.preparation import PreparedData, encoded, prepare_data
from finqa_sft.preparation.pages import Page, PageEncoder
from finqa_sft.recipe import load_recipe

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs processes forked on Linux")

RECIPE = """\
data:
  processes: 2
  sources:
    - reader: columns
      files: own.csv
formatter:
  name: answer
  system: Answer.
  max_length: 64
"""

WAYWARD = """\
import os, signal, sys, time
from finqa_sft import AnswerFormatter, hookimpl
from finqa_sft.formatters.answer import AnswerOptions
from finqa_sft.errors import DataError
from finqa_sft.options import Options, RecipePath
from finqa_sft.plugins.records import FormatterRecord

class Strange(Exception):
    def __init__(self, page, line):
        super().__init__(f"page {page}, line {line}")

class How(Options):
    how: str = ""
    files: tuple[RecipePath, ...] = ()

class Wayward(AnswerFormatter):
    def __init__(self, options):
        super().__init__(AnswerOptions(system="Answer."))
        self.how = options.how

    def prompt(self, question, *, document):
        if "q7 " in question.text:
            match self.how:
                case "raises":
                    raise KeyError("ledger")
                case "strange":
                    raise Strange(3, 4)
                case "refuses":
                    raise DataError("this question cannot be put")
                case "opens":
                    open("/nowhere/ledger")
                case "exits":
                    sys.exit("no ledger today")
                case "dies":
                    os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "slow":
            with open("processes", "a") as file:
                file.write(f"{os.getpid()}\\n")
            time.sleep(0.1)
        return super().prompt(question, document=document)

@hookimpl
def finqa_sft_formatters():
    return [FormatterRecord(name="wayward", summary="w", config=How, build=Wayward)]
"""

ROWS = [
    (f"q{i} {'sales ' * (i % 5)}?", f"Page {i // 3}. " * (1 + i % 9 // 3), i) for i in range(30)
]
SHORTENED = {0: "long" * 100, 5: "Sales were 2012\u00a0. " * 30}


def write_rows(folder: Path) -> None:
    """Rows of ten documents: some whole, some cut, some left out."""
    lines = [
        f"{question},{SHORTENED.get(number // 3, context)},{answer}"
        for number, (question, context, answer) in enumerate(ROWS)
    ]
    text = "question,context,answer\n" + "\n".join(lines) + "\nq,c,5<|end|>6\n"
    (folder / "own.csv").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def encoder(tiny: Path) -> Encoder:
    return Encoder(AutoTokenizer.from_pretrained(tiny))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with rows and a recipe, its own cache, and everything taken for large."""
    write_rows(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE)
    (tmp_path / "wayward.py").write_text(WAYWARD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FINQA_SFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(encoded, "FEW_QUESTIONS", 3)
    return tmp_path


Say = Callable[[str], None]


def prepared(encoder: Encoder, *overrides: str, say: Say | None = None) -> PreparedData:
    recipe = load_recipe(Path("r.yaml"), overrides, Plugins.load({"FINQA_SFT_PLUGINS": ""}))
    return prepare_data(recipe, encoder=encoder, formatter=recipe.formatter.build(), say=say)


def wayward(how: str) -> tuple[str, str]:
    return "plugins=[wayward.py]", f"formatter={{name: wayward, max_length: 64, how: {how}}}"


def everything(data: PreparedData) -> tuple[object, ...]:
    """All that there is to know of prepared data."""
    return (
        data.fingerprint,
        [data.training.encoded[i] for i in range(len(data.training))],
        [question.source for question in data.training.questions],
        [(dropped.question.source, dropped.reason) for dropped in data.training.dropped],
        data.counts,
    )


def entries(folder: Path) -> dict[str, int]:
    """The entries of the cache that can be read, with the time of their last change."""
    return {
        str(file.relative_to(folder)): file.stat().st_mtime_ns
        for file in (folder / "cache" / "encoded").rglob("*.arrow")
        if ".incomplete" not in str(file)
    }


def test_two_processes_and_the_cache_give_the_rows_of_one(
    folder: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_two = everything(prepared(encoder))
    assert len(entries(folder)) == 1
    before = entries(folder)
    read_back = everything(prepared(encoder))
    assert entries(folder) == before
    in_two_uncached = everything(prepared(encoder, "data.cache=false"))
    in_one = everything(prepared(encoder, "data.processes=1"))
    assert entries(folder) == before, "the number of processes is not in the key"
    monkeypatch.setattr(encoded, "FEW_QUESTIONS", 100)
    in_memory = everything(prepared(encoder))
    assert in_two == read_back == in_two_uncached == in_one == in_memory
    counts = prepared(encoder).counts
    assert counts.left_out
    assert counts.changed["document cut to formatter.max_length"]


def test_what_is_in_the_cache_is_not_encoded_again(
    folder: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(encoder)

    def refuse(self: PageEncoder, page: Page) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(PageEncoder, "page", refuse)
    prepared(encoder)


def change_question(encoder: Encoder) -> str:
    text = Path("own.csv").read_text()
    Path("own.csv").write_text(text.replace("q4 ", "q4, ", 1).replace("q4, ", "q4: ", 1))
    return "notes=x"


def change_template(encoder: Encoder) -> str:
    template = encoder.tokenizer.chat_template
    assert isinstance(template, str)
    encoder.tokenizer.chat_template = template + "{# another #}"
    return "notes=x"


@pytest.mark.parametrize(
    "change",
    [
        "formatter.max_length=65",
        "formatter.table_style=tsv",
        "formatter.system=Answer",
        "formatter.name=program",
        "data.cleaning.spaces_and_minus=false",
        change_question,
        change_template,
    ],
)
def test_what_changes_rows_makes_another_entry(
    folder: Path, tiny: Path, change: str | Callable[[Encoder], str]
) -> None:
    encoder = Encoder(AutoTokenizer.from_pretrained(tiny))
    prepared(encoder)
    before = entries(folder)
    override = change if isinstance(change, str) else change(encoder)
    prepared(encoder, override)
    after = entries(folder)
    assert len(after) == 2 * len(before)
    assert before.items() <= after.items()


@pytest.mark.parametrize("change", ["data.cleaning.header_rows=false", "trainer.max_steps=3"])
def test_what_changes_no_row_makes_no_other_entry(
    folder: Path, encoder: Encoder, change: str
) -> None:
    prepared(encoder)
    before = entries(folder)
    prepared(encoder, change)
    assert entries(folder) == before


def test_held_out_rows_are_entries_of_their_own(folder: Path, encoder: Encoder) -> None:
    data = prepared(encoder, "data.split.held_out=0.3")
    assert len(entries(folder)) == 2
    again = prepared(encoder, "data.split.held_out=0.3")
    assert everything(again) == everything(data)
    assert [again.held_out.encoded[i] for i in range(len(again.held_out))] == [
        data.held_out.encoded[i] for i in range(len(data.held_out))
    ]
    assert len(entries(folder)) == 2


def test_the_source_of_a_plugins_formatter_is_in_the_key(folder: Path, encoder: Encoder) -> None:
    prepared(encoder, *wayward("none"))
    file = folder / "wayward.py"
    file.write_text(file.read_text() + "\n# another version\n")
    prepared(encoder, *wayward("none"))
    assert len(entries(folder)) == 2


def test_the_contents_of_files_that_options_name_are_in_the_key(
    folder: Path, encoder: Encoder
) -> None:
    plugin, formatter = wayward("none")
    (folder / "glossary.txt").write_text("one")
    named = plugin, formatter.replace("how:", "files: [glossary.txt], how:")
    prepared(encoder, *named)
    prepared(encoder, *named)
    assert len(entries(folder)) == 1
    (folder / "glossary.txt").write_text("two")
    prepared(encoder, *named)
    assert len(entries(folder)) == 2
    prepared(encoder, plugin, formatter.replace("how:", "files: [.], how:"))
    assert len(entries(folder)) == 2, "what is in a folder cannot be told"


def test_without_a_cache_nothing_is_written(folder: Path, encoder: Encoder) -> None:
    said: list[str] = []
    prepared(encoder, "data.cache=false", say=said.append)
    assert not (folder / "cache").exists()
    assert said == ["encoding 31 questions in 2 processes"]


def test_large_data_says_where_its_rows_are_kept_and_how_far_it_is(
    folder: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoded, "SECONDS_BETWEEN_REPORTS", 0.0)
    said: list[str] = []
    prepared(encoder, say=said.append)
    assert said[0] == (
        f"encoding 31 questions in 2 processes, kept in {folder / 'cache' / 'encoded'}"
    )
    assert said[-1] == "encoded 31 of 31 questions"
    assert len(said) == 12
    said.clear()
    prepared(encoder, say=said.append)
    assert len(said) == 1


def test_a_cache_that_cannot_be_written_is_named(
    folder: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINQA_SFT_CACHE", str(folder / "own.csv"))
    with pytest.raises(DataError) as caught:
        prepared(encoder)
    assert str(caught.value) == (
        f"cannot write {folder / 'own.csv' / 'encoded'}: Not a directory; set FINQA_SFT_CACHE to "
        "a folder that can be written and has room, or data.cache=false"
    )
    prepared(encoder, "data.cache=false")


def cut_off(file: Path) -> None:
    os.truncate(file, 100)


def cut_off_behind_a_batch(file: Path) -> None:
    with pyarrow.OSFile(str(file)) as source:
        reader = pyarrow.ipc.open_stream(source)
        batch = reader.read_next_batch()
    with (
        pyarrow.OSFile(str(file), "wb") as sink,
        pyarrow.ipc.new_stream(sink, reader.schema) as writer,
    ):
        writer.write_batch(batch.slice(0, 20))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_off, "Expected to read "),
        (cut_off_behind_a_batch, "20 of 31 rows are there; "),
        (Path.unlink, "[Errno 2] Failed to open local file "),
    ],
)
def test_a_damaged_cache_is_named_and_not_read(
    folder: Path, encoder: Encoder, damage: Callable[[Path], None], said: str
) -> None:
    whole = prepared(encoder).fingerprint
    [file] = entries(folder)
    damage(folder / file)
    with pytest.raises(DataError) as caught:
        prepared(encoder)
    kept = folder / "cache" / "encoded"
    assert str(caught.value).startswith(f"the rows kept in {kept} are damaged: {said}")
    assert str(caught.value).endswith("; delete that folder, or set data.cache=false")
    assert prepared(encoder, "data.cache=false").fingerprint == whole
    shutil.rmtree(kept)
    assert prepared(encoder).fingerprint == whole


@pytest.mark.parametrize(("processes", "cache"), [(1, "true"), (2, "true"), (2, "false")])
@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ("raises", KeyError, "'ledger'"),
        ("opens", FileNotFoundError, "[Errno 2] No such file or directory: '/nowhere/ledger'"),
        ("refuses", DataError, "this question cannot be put"),
        ("exits", PluginError, "the formatter 'wayward' of wayward.py ended the run: SystemExit: "),
    ],
)
def test_an_error_of_a_plugin_comes_out_of_its_process_with_its_name(
    folder: Path,
    encoder: Encoder,
    how: str,
    kind: type[Exception],
    said: str,
    processes: int,
    cache: str,
) -> None:
    run = [*wayward(how), f"data.processes={processes}", f"data.cache={cache}"]
    with pytest.raises(kind) as caught:
        prepared(encoder, *run)
    assert str(caught.value).startswith(said)
    notes = vars(caught.value).get("__notes__", [])
    is_named = kind in (KeyError, FileNotFoundError)
    assert notes == ["raised in the formatter 'wayward' of wayward.py"] * is_named
    assert entries(folder) == {}
    assert not list(folder.rglob("*.incomplete")), "nothing half written"
    file = folder / "wayward.py"
    file.write_text(file.read_text().replace('"q7 "', '"q77 "'))
    assert len(prepared(encoder, *run).training) == len(prepared(encoder).training)


@needs_linux
def test_the_traceback_in_a_process_is_the_cause(folder: Path, encoder: Encoder) -> None:
    with pytest.raises(KeyError) as caught:
        prepared(encoder, *wayward("raises"))
    cause = str(caught.value.__cause__)
    assert cause.startswith("in a process that encodes\nTraceback (most recent call last):\n")
    assert 'wayward.py", line 25, in prompt\n    raise KeyError("ledger")\n' in cause


@needs_linux
def test_an_error_that_cannot_be_sent_to_another_process_is_said(
    folder: Path, encoder: Encoder
) -> None:
    with pytest.raises(RuntimeError) as caught:
        prepared(encoder, *wayward("strange"))
    assert str(caught.value) == "Strange: page 3, line 4"
    assert caught.value.__notes__ == ["raised in the formatter 'wayward' of wayward.py"]


@needs_linux
def test_a_process_that_the_system_ends_is_not_waited_for(folder: Path, encoder: Encoder) -> None:
    with pytest.raises(HardwareError) as caught:
        prepared(encoder, *wayward("dies"))
    assert str(caught.value) == (
        "a process that encodes questions was ended by the system (exit code -9); if memory was "
        "short, lower data.processes"
    )
    assert entries(folder) == {}


def test_our_errors_can_be_sent_to_another_process(encoder: Encoder) -> None:
    with pytest.raises(DataError) as caught:
        encoder.encode(
            [{"role": "user", "content": "q"}], [{"role": "assistant", "content": "5<|end|>"}]
        )
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


class Command:
    """A command in a process group of its own: forked, as starting Python anew takes seconds."""

    def __init__(self, *words: str) -> None:
        self._ends = [os.memfd_create(name) for name in ("out", "err")]
        self.process = os.fork()
        if not self.process:
            os.setsid()
            sys.stdout, sys.stderr = (os.fdopen(end, "w", buffering=1) for end in self._ends)
            status = 99
            try:
                status = main(words)
            finally:
                multiprocessing.util._exit_function()  # type: ignore[attr-defined]
                os._exit(status)

    def send(self, number: signal.Signals, *, to_all: bool = False) -> None:
        (os.killpg if to_all else os.kill)(self.process, number)

    def ended(self) -> tuple[int, str, str]:
        """Its status, or minus the signal that ended it, and what it printed."""
        _, status = os.waitpid(self.process, 0)
        said = []
        for end in self._ends:
            with os.fdopen(end, encoding="utf-8") as file:
                file.seek(0)
                said.append(file.read())
        return os.waitstatus_to_exitcode(status), said[0], said[1]

    def workers(self) -> set[int]:
        """The two processes that encode for it, once both are at work."""
        listed, found = Path("processes"), set()
        deadline = time.monotonic() + 60
        while len(found) < 2:
            assert time.monotonic() < deadline, self.ended()
            time.sleep(0.02)
            found = set(listed.read_text().split()) if listed.exists() else set()
        return set(map(int, found))


def is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended and that nobody asked for does not."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def own_base(folder: Path, tiny: Path) -> Path:
    """A folder whose cache holds the embedded base already."""
    (folder / "cache").mkdir()
    (folder / "cache" / tiny.name).symlink_to(tiny)
    (folder / "r.yaml").write_text("model: {base: tiny}\n" + RECIPE)
    return folder


@needs_linux
@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("verb", "number", "to_all"),
    [
        ("stats", signal.SIGINT, True),
        ("stats", signal.SIGTERM, False),
        ("train", signal.SIGTERM, True),
    ],
)
def test_a_signal_ends_all_processes_and_the_next_run_works(
    own_base: Path, tiny: Path, encoder: Encoder, verb: str, number: signal.Signals, to_all: bool
) -> None:
    command = Command(verb, "r.yaml", *wayward("slow"))
    workers = command.workers()
    command.send(number, to_all=to_all)
    status, out, err = command.ended()
    assert status == 128 + number
    if verb == "train":
        assert err == (
            "interrupted; before the first step: nothing was written; start again with the same "
            "command\n"
        )
    else:
        assert (out, err) == ("", "interrupted\n")
    assert len(workers) == 2
    assert not any(map(is_alive, workers))
    assert entries(own_base) == {}
    assert not list(own_base.rglob("*.incomplete"))
    file = own_base / "wayward.py"
    file.write_text(file.read_text().replace("0.1", "0"))
    assert prepared(encoder, *wayward("slow")).fingerprint == prepared(encoder).fingerprint


@needs_linux
@pytest.mark.multiprocess
def test_processes_end_with_the_one_that_started_them(own_base: Path, encoder: Encoder) -> None:
    command = Command("stats", "r.yaml", *wayward("slow"))
    workers = command.workers()
    command.send(signal.SIGKILL)
    assert command.ended() == (-signal.SIGKILL, "", "")
    deadline = time.monotonic() + 60
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    file = own_base / "wayward.py"
    file.write_text(file.read_text().replace("0.1", "0"))
    assert prepared(encoder, *wayward("slow")).fingerprint == prepared(encoder).fingerprint


@needs_linux
@pytest.mark.multiprocess
def test_two_commands_can_prepare_the_same_data_at_once(own_base: Path) -> None:
    both = [Command("stats", "r.yaml", "--json") for _ in range(2)]
    first, second = (command.ended() for command in both)
    assert first == second
    assert (first[0], first[2]) == (0, "")
    assert json.loads(first[1])["read"] == {"columns 1": 31}
    assert len(entries(own_base)) == 1


@needs_linux
@pytest.mark.multiprocess
def test_ctrl_c_as_a_user_presses_it(own_base: Path) -> None:
    code = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from finqa_sft.preparation import encoded\nencoded.FEW_QUESTIONS = 3\n"
        "from finqa_sft.cli.main import entry\nentry()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "stats", "r.yaml", *wayward("slow")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ,
    )
    deadline = time.monotonic() + 60
    listed = own_base / "processes"
    while not listed.exists() or len(set(listed.read_text().split())) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")
    assert not any(is_alive(int(worker)) for worker in listed.read_text().split())
    assert entries(own_base) == {}
