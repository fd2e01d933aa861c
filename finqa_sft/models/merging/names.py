"""Which parameter each tensor in a base's files is loaded as.

transformers loads some bases under other names than those in their files, and puts some parameters
together of several tensors, or takes them apart. Its own rules are asked (5.17 to 5.24,
`core_model_loading.py`, `convert_and_load_state_dict_in_model`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def keys_of_parameters(keys: Iterable[str], model: PreTrainedModel) -> dict[str, str]:
    """The names in a base's files, by the parameter that each is loaded as.

    Args:
        keys: The names in the files.
        model: The model, without weights.

    Returns:
        Only those that are loaded as they are, one tensor for one parameter.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    parameters = model.state_dict()
    prefix = model.base_model_prefix
    found = {}
    for key in keys:
        name, converted = rename_source_key(key, renamings, converters, prefix, parameters)
        if name not in parameters and key in parameters:
            name, converted = rename_source_key(key, [], [], prefix, parameters)
        if name in parameters and converted is None:
            found[name] = key
    return found
