from __future__ import annotations

import pytest
from chat_templates import CHATML, FAMILIES

from finqa_sft.testing import ContractError, TokenizerRule, check_tokenizer


@pytest.mark.parametrize("name", FAMILIES)
def test_the_families_of_tokenizers_keep_the_contract(name: str) -> None:
    tokenizer = FAMILIES[name].tokenizer()
    template = tokenizer.chat_template
    check_tokenizer(tokenizer)
    assert tokenizer.chat_template == template


def broken(template: str) -> ContractError:
    tokenizer = FAMILIES["smollm2"].tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ContractError) as error:
        check_tokenizer(tokenizer)
    return error.value


def test_a_template_that_leaves_answers_out_is_not_usable() -> None:
    error = broken(CHATML.replace("m.content", "(m.content if m.role != 'assistant' else '')"))
    assert error.rule is TokenizerRule.USABLE
    assert "the chat template leaves out what the assistant says" in error.seen


def test_a_template_that_changes_some_answers_breaks_a_guarantee() -> None:
    error = broken(CHATML.replace("m.content", "m.content | replace('-', '')"))
    assert error.rule is TokenizerRule.GUARANTEES
    assert error.seen.startswith(
        "encoding the answer '-22.22\\nscale: percent' raised BrokenGuarantee"
    )
