"""How a tokenizer writes one user turn and the opening of an answer, without a system prompt.

Four formats are built in, because adapters are bound to their text to the character; each is taken
only where the tokenizer has its special tokens and its chat template does not disagree. Every other
format is derived from the chat template: it is rendered around marks, and what is between the
marks is the format.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from selfie_adapters.errors import PromptError
from selfie_adapters.model.chat_template import render
from selfie_adapters.model.tokens import added_tokens, first_added, plain_begin, token_id

# Plain words: no template trims, escapes or splits them.
_USER, _ANSWER, _AGAIN = "selfieusermark", "selfieanswermark", "selfieagainmark"
_SYSTEM = "You are a helpful assistant."
_OPTIONS = {"enable_thinking": False, "thinking": False}
_THINKING = re.compile(r"<(/?)(think|thinking|thought|reasoning)>|\[(/?)(THINK)\]")


@dataclass(frozen=True)
class ChatFormat:
    """`before`, the user's text, `between`, the answer; `end` is the token that ends an answer.

    gap: what the template puts between its opening and the answer's first word, a space or
    nothing. placeholders: free special tokens that a built-in format prefers. origin: where the
    format comes from, for the reader.
    """

    before: str
    between: str
    end: str | None
    origin: str
    gap: str = ""
    placeholders: tuple[str, ...] = ()

    def turn(self, user: str) -> str:
        """One user turn and the opening of the answer."""
        return self.before + user + self.between


@dataclass(frozen=True)
class _BuiltIn:
    """marker: a token that only this family's vocabulary has. begin: its begin token."""

    name: str
    marker: str
    begin: str
    turn: str
    between: str
    placeholders: tuple[str, ...]
    end: str

    @property
    def format(self) -> ChatFormat:
        origin = f"the built-in {self.name} format (the tokenizer has {self.marker})"
        before = self.begin + self.turn
        return ChatFormat(before, self.between, self.end, origin, "", self.placeholders)


# Tried in order: Gemma and Llama 3 have markers of their own; Qwen speaks ChatML with other
# free tokens, so it comes before plain ChatML.
_BUILT_IN = (
    _BuiltIn(
        "Llama 3",
        "<|start_header_id|>",
        "<|begin_of_text|>",
        "<|start_header_id|>user<|end_header_id|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ("<|reserved_special_token_0|>",),
        "<|eot_id|>",
    ),
    _BuiltIn(
        "Gemma",
        "<start_of_turn>",
        "<bos>",
        "<start_of_turn>user\n",
        "<end_of_turn>\n<start_of_turn>model\n",
        ("<unused0>",),
        "<end_of_turn>",
    ),
    _BuiltIn(
        "Qwen",
        "<|object_ref_start|>",
        "",
        "<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        ("<|object_ref_start|>",),
        "<|im_end|>",
    ),
    _BuiltIn(
        "ChatML",
        "<|im_start|>",
        "",
        "<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        ("<reponame>", "<repo_name>", "<|reserved_0|>", "<unk>"),
        "<|im_end|>",
    ),
)


def chat_format(tokenizer: PreTrainedTokenizerBase) -> ChatFormat | None:
    """The tokenizer's chat format; None for a base model's, which has none.

    Raises PromptError where its chat template takes no user turn at all.
    """
    known = (f for f in _BUILT_IN if token_id(tokenizer, f.marker) is not None)
    built_in = next(known, None)
    if not tokenizer.chat_template:
        return built_in.format if built_in else None
    if built_in and _agrees(tokenizer, built_in):
        return built_in.format
    return _derived(tokenizer)


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The token that ends an answer in the tokenizer's chat format, else its end-of-text token."""
    try:
        found = chat_format(tokenizer)
    except PromptError:  # a template that takes no turn: whoever needs the turn gets the error
        found = None
    end = found.end if found else tokenizer.eos_token
    return None if end is None else str(end)


def _agrees(tokenizer: PreTrainedTokenizerBase, known: _BuiltIn) -> bool:
    """Whether the template writes a turn as the built-in format does, system prompt aside."""
    turn = known.turn + _USER + known.between
    try:
        text = render(tokenizer, [{"role": "user", "content": _USER}])
    except PromptError:
        return False
    begins = not known.begin or text.startswith(known.begin) or plain_begin(tokenizer) is not None
    return begins and turn in text


def _derived(tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
    system, wrap = _accepted(tokenizer)

    def rendered(*said: str, generation: bool = True) -> str | None:
        roles = ("user", "assistant", "user")
        turns = [{"role": r, "content": wrap(s)} for r, s in zip(roles, said, strict=False)]
        try:
            text = render(tokenizer, [*system, *turns], generation, **_OPTIONS)
        except PromptError:
            return None
        return text if all(text.count(s) == 1 for s in said) else None

    text = rendered(_USER)
    assert text is not None
    before, _, opening = text.partition(_USER)
    whole = rendered(_USER, _ANSWER, generation=False)
    end, origin = None, "its chat template"
    if whole is not None:
        _, _, rest = whole.partition(_USER)
        written, _, after = rest.partition(_ANSWER)
        opening = _opening(opening, written)
        end = first_added(tokenizer, after.lstrip())
    else:
        opening = _opening(opening, "")
    gap = " " if opening.endswith(" ") else ""
    both = rendered(_USER, _ANSWER, _AGAIN)
    if both is not None and not system:
        after = both.partition(_ANSWER)[2].partition(_AGAIN)[0]
        bare = _without_system(tokenizer, before, after)
        if bare != before:
            before, origin = bare, "its chat template, without the default system prompt"
    elif system:
        origin = "its chat template, with the system turn that it requires"
    before = _with_begin_text(tokenizer, before)
    end = end or (None if tokenizer.eos_token is None else str(tokenizer.eos_token))
    return ChatFormat(before, opening.rstrip(" "), end, origin, gap)


def _accepted(tokenizer: PreTrainedTokenizerBase) -> tuple[list[dict[str, Any]], Any]:
    """System turns that the template requires, and how content is passed to it.

    Raises PromptError if a user's text does not come out once and unchanged in any way.
    """
    first: PromptError | None = None
    taken = False
    for system, wrap in _ways():
        turns = [*system, {"role": "user", "content": wrap(_USER)}]
        try:
            text = render(tokenizer, turns, **_OPTIONS)
        except PromptError as error:
            first = first or error
            continue
        taken = True
        if text.count(_USER) == 1:
            return system, wrap
    advice = (
        "Pass a prompt of your own: SoftPrompt(template, placeholder), --template and "
        "--placeholder, or soft_prompt.template and soft_prompt.reserved_token in a configuration."
    )
    if first is not None and not taken:
        raise PromptError(f"{first} {advice}") from first
    raise PromptError(
        f"the chat template of {tokenizer.name_or_path} drops or changes the user's text, so no "
        f"prompt can be derived from it. {advice}"
    )


def _ways() -> Iterator[tuple[list[dict[str, Any]], Any]]:
    def parts(text: str) -> list[dict[str, str]]:
        return [{"type": "text", "text": text}]

    for wrap in (str, parts):
        yield [], wrap
    for wrap in (str, parts):
        yield [{"role": "system", "content": wrap(_SYSTEM)}], wrap


def _opening(generation: str, written: str) -> str:
    """What is between the user's text and an answer that does not think first.

    generation: the template's opening of an answer that is to come. written: what it puts before
    an answer that is there, and empty where that is unknown. The second is taken where it
    completes the first (a space, a channel, an empty block of thoughts).
    """
    if written.startswith(generation):
        return written
    tags = list(_THINKING.finditer(generation))
    if tags and not (tags[-1][1] or tags[-1][3]):  # thoughts are opened and not closed
        name = tags[-1][2] or tags[-1][4]
        close = f"[/{name}]" if tags[-1][4] else f"</{name}>"
        return f"{generation.rstrip()}\n\n{close}\n\n"
    return generation


def _without_system(tokenizer: PreTrainedTokenizerBase, before: str, after: str) -> str:
    """`before` without a default system prompt.

    before: what precedes a first user turn. after: what is between an answer and the next
    user turn, which is the answer's end token and the same opening.
    """
    end = first_added(tokenizer, after.lstrip())
    if end is None:
        return before
    opening = after.lstrip()[len(end) :]
    if not before.endswith(opening):  # line breaks belong to the end of a turn
        opening = opening.lstrip()
    if not opening or not before.endswith(opening):
        return before
    rest = before[: -len(opening)]
    begin = str(tokenizer.bos_token or "")
    begin = begin if begin and rest.startswith(begin) else ""
    default = _without_added(tokenizer, rest[len(begin) :])
    return begin + opening.lstrip("\n") if re.search(r"\w", default) else before


def _without_added(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    for token in sorted(added_tokens(tokenizer).values(), key=len, reverse=True):
        text = text.replace(token, "")
    return text


def _with_begin_text(tokenizer: PreTrainedTokenizerBase, before: str) -> str:
    """Some templates leave the begin token to the tokenizer; here nothing is added later."""
    begin = str(tokenizer.bos_token or "")
    if plain_begin(tokenizer) is not None and not before.startswith(begin):
        return begin + before
    return before
