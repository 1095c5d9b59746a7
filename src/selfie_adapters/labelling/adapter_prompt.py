"""The prompt that an adapter is used with."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from selfie_adapters.adapters import Adapter
from selfie_adapters.model import SoftPrompt
from selfie_adapters.model.prompt import PromptChoice, choose_prompt


def adapter_prompt(
    adapter: Adapter,
    tokenizer: PreTrainedTokenizerBase,
    template: str | None = None,
    placeholder: str | None = None,
) -> SoftPrompt:
    """The prompt an adapter is used with: its own, or the tokenizer's where it is not bound.

    template, placeholder: the user's, in place of those. Raises PromptError like `choose_prompt`.
    """
    base = None
    if (bound := adapter.binding) is not None:
        origin = "the adapter's binding"
        base = PromptChoice(
            SoftPrompt(bound.template, bound.placeholder, bound.end), origin, origin
        )
    return choose_prompt(tokenizer, template, placeholder, base).prompt
