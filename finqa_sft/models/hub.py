"""The one place that asks the Hugging Face Hub for something."""

from __future__ import annotations

from pathlib import Path

from finqa_sft.errors import ModelError
from finqa_sft.wording import one_line


def download_config(name: str, revision: str | None) -> Path:
    """The config file of a base on the Hub, from its cache where that is up to date.

    Raises:
        ModelError: There is no such base or revision, it is gated, it has no config, or the Hub
            cannot be reached and the base was not downloaded before.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(hf_hub_download(name, "config.json", revision=revision))
    except GatedRepoError as error:
        raise ModelError(
            f"base {name!r} is gated on the Hub; accept its terms at "
            f"https://huggingface.co/{name} and log in with `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"base {name!r} has no revision {revision!r} on the Hub; correct model.revision"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"base {name!r}: no such folder beside the recipe and no such model on the Hub, or a "
            "private one; correct model.base, or log in with `hf auth login`"
        ) from error
    except LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the Hub cannot be reached"
        raise ModelError(
            f"base {name!r}: no such folder beside the recipe, it is not in the Hub's cache, and "
            f"{why}; download it with `hf download {name}` where there is a network, or name a "
            "local folder in model.base"
        ) from error
    except EntryNotFoundError as error:
        raise ModelError(
            f"base {name!r} on the Hub has no config.json: it may be an adapter or a collection of "
            "GGUF files; name its base, or download one GGUF file and name that"
        ) from error
    except HfHubHTTPError as error:
        raise ModelError(
            f"base {name!r}: the Hub answered {error}; try again, or name a local folder"
        ) from error


WEIGHTS = ("model*.safetensors", "*.safetensors.index.json", "*config.json")
"""The files of a model without its tokenizer."""


def download_weights(name: str, revision: str | None) -> Path:
    """The folder with the weight files of a base on the Hub, from its cache where they are there.

    Raises:
        ModelError: They are not in the cache, and the Hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(WEIGHTS)))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ModelError(
            f"base {name!r}: its weights are not in the Hub's cache and cannot be downloaded "
            f"({one_line(error)}); download them with `hf download {name}` where there is a "
            "network, or name a local folder in model.base"
        ) from error
