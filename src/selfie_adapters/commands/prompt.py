"""`selfie prompt show`: the tokens of a soft prompt, with the sites marked."""

from __future__ import annotations

import json as json_module

from rich.console import Console
from rich.markup import escape


def show(
    *,
    model: str,
    template: str | None = None,
    placeholder: str | None = None,
    json: bool = False,
) -> None:
    """Show a prompt as the tokens the model sees.

    Parameters
    ----------
    model
        Hub id, local folder, .gguf file, or demo; only its tokenizer is loaded.
    template
        Prompt text; default: the built-in one for this tokenizer.
    placeholder
        The token that each soft token replaces; default: that of the built-in prompt.
    json
        Print one JSON object instead.
    """
    from dataclasses import replace

    from selfie_adapters.model import SoftPrompt
    from selfie_adapters.model.loading import load_tokenizer

    tokenizer = load_tokenizer(model)
    if template is not None and placeholder is not None:
        prompt = SoftPrompt(template, placeholder)
    else:
        prompt = SoftPrompt.for_tokenizer(tokenizer)
        changes = {"template": template, "placeholder": placeholder}
        prompt = replace(prompt, **{key: value for key, value in changes.items() if value})
    bound = prompt.bind(tokenizer)
    pieces = [str(tokenizer.decode([token])) for token in bound.ids]
    if json:
        print(  # noqa: T201
            json_module.dumps(
                {
                    "template": prompt.template,
                    "placeholder": prompt.placeholder,
                    "placeholder_id": bound.placeholder_id,
                    "ids": bound.ids,
                    "tokens": pieces,
                    "sites": bound.sites,
                    "shared_prefix_tokens": len(bound.prefix_ids),
                    "end_id": bound.end_id,
                },
                ensure_ascii=False,
            )
        )
        return
    console = Console()
    for position, (token, piece) in enumerate(zip(bound.ids, pieces, strict=True)):
        shown = escape(repr(piece)[1:-1])
        mark = "  [bold green]◀ soft token[/]" if position in bound.sites else ""
        console.print(f"[dim]{position:4d} {token:7d}[/]  {shown}{mark}", highlight=False)
    end = escape(str(tokenizer.decode([bound.end_id])))
    console.print(
        f"{len(bound.ids)} tokens, sites {', '.join(map(str, bound.sites))}; the first "
        f"{len(bound.prefix_ids)} are computed once and shared. "
        f"Then comes the label, its closing quote, and {end}.",
        highlight=False,
    )
