"""Render a tokenizer's chat template: the same text on every day, and one error when it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from selfie_adapters.errors import PromptError, first_line

# Some templates write the date of today, which would move every vector from one day to the next.
# transformers passes no functions to templates, so theirs is shadowed by a macro. The date is the
# one that Llama 3's template falls back to. The newline at the end is removed by `trim_blocks`.
_DATE = "%Y 2024 %y 24 %m 07 %d 26 %b Jul %B July %a Fri %A Friday %H 12 %M 00 %S 00".split()
_FIXED_DATE = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f"|replace('{a}', '{b}')" for a, b in zip(_DATE[::2], _DATE[1::2], strict=True))
    + " }}{%- endmacro %}\n"
)


def render(
    tokenizer: PreTrainedTokenizerBase,
    turns: Sequence[dict[str, Any]],
    generation: bool = True,
    **options: Any,
) -> str:
    """The text of `turns` in the tokenizer's chat template.

    turns: role and content of each. generation: with the opening of the answer. options: what the
    template calls its own options, such as enable_thinking. Templates see a fixed date.
    Raises PromptError where there is no template, or it refuses the turns.
    """
    if not tokenizer.chat_template:
        raise PromptError(
            f"{tokenizer.name_or_path} has no chat template. Pass chat='none' (--chat none)."
        )
    try:
        source = tokenizer.get_chat_template()
        if "strftime_now" in source:
            source = _FIXED_DATE + source
        return str(
            tokenizer.apply_chat_template(
                list(turns),
                chat_template=source,
                tokenize=False,
                add_generation_prompt=generation,
                **options,
            )
        )
    except Exception as error:  # templates raise what they like, and so does Jinja
        raise PromptError(
            f"the chat template of {tokenizer.name_or_path} refuses these turns "
            f"({', '.join(str(turn.get('role')) for turn in turns)}): {first_line(error)}. Many "
            "templates know no system turn, or require user and assistant to alternate."
        ) from error


def template_source(tokenizer: PreTrainedTokenizerBase) -> str:
    """Everything in the tokenizer's chat templates, as text; empty without one."""
    found: Any = tokenizer.chat_template
    return str(found) if found else ""
