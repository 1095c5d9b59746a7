"""`selfie prompt show`: the tokens of a soft prompt, with the sites marked."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from selfie_adapters.commands.options import Json, options
from selfie_adapters.commands.printing import print_json
from selfie_adapters.config.commands import ShownPrompt
from selfie_adapters.output import visible


@options(ShownPrompt)
def show(settings: ShownPrompt, *, json: Json = False) -> None:
    """Show a prompt as the tokens the model sees, and why it is this one."""
    from selfie_adapters.model.loading import load_tokenizer
    from selfie_adapters.model.prompt import choose_prompt
    from selfie_adapters.model.tokens import leading

    tokenizer = load_tokenizer(settings.model)
    choice = choose_prompt(tokenizer, settings.template, settings.placeholder)
    prompt = choice.prompt
    bound = prompt.bind(tokenizer)
    begin = tokenizer.bos_token_id
    begins = leading(bound.ids, begin) if isinstance(begin, int) else 0
    pieces = [str(tokenizer.decode([token])) for token in bound.ids]
    if json:
        print_json(
            [
                {
                    "template": prompt.template,
                    "placeholder": prompt.placeholder,
                    "placeholder_id": bound.placeholder_id,
                    "ids": bound.ids,
                    "tokens": pieces,
                    "sites": bound.sites,
                    "shared_prefix_tokens": len(bound.prefix_ids),
                    "end_id": bound.end_id,
                    "begin_tokens": begins,
                    "template_origin": choice.template_origin,
                    "placeholder_origin": choice.placeholder_origin,
                }
            ]
        )
        return
    console = Console()
    for position, (token, piece) in enumerate(zip(bound.ids, pieces, strict=True)):
        shown = escape(visible(piece))
        mark = "  [bold green]◀ soft token[/]" if position in bound.sites else ""
        console.print(f"[dim]{position:4d} {token:7d}[/]  {shown}{mark}", highlight=False)
    for name, text in (
        ("text", choice.template_origin),
        ("placeholder", f"{prompt.placeholder}, {choice.placeholder_origin}"),
        ("begin tokens in front", f"{begins} ({tokenizer.bos_token})" if begins else "none"),
    ):
        console.print(f"{name}: {visible(text)}", highlight=False, markup=False)
    end = escape(visible(str(tokenizer.decode([bound.end_id]))))
    console.print(
        f"{len(bound.ids)} tokens, sites {', '.join(map(str, bound.sites))}; the first "
        f"{len(bound.prefix_ids)} are computed once and shared. "
        f"Then comes the label, its closing quote, and {end}.",
        highlight=False,
    )
