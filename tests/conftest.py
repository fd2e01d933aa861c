"""Fixtures of all tests: no network, a cache of their own, real data where it is at hand."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

# Before anything imports a Hugging Face library, which read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# The models of the tests are too small to gain from threads, which wait for each other where other
# processes use the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache folder for the whole session, so that the embedded base is built once."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINQA_SFT_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_is_heard() -> None:
    """Let Ctrl-C reach tests and their processes where a shell started pytest to ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def environment_of_its_own() -> Iterator[None]:
    """Undo what a test's libraries set: transformers keeps FSDP's switch in the environment."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="module")
def cpu_only() -> Iterator[None]:
    """Hide GPUs from the tests of a module, which names it in `pytestmark`."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real data beside the checkout."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data files in ../shared/data")
    return folder


@pytest.fixture(scope="session")
def tiny(own_cache: Path) -> Path:
    """The folder of the embedded base."""
    from finqa_sft.models.tiny import tiny_base

    return tiny_base()
