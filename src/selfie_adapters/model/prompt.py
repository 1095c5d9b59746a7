"""The fixed question around the soft token: template, placeholder, and where it lands."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from selfie_adapters.errors import PromptError
from selfie_adapters.model.chat_format import chat_format, end_of_turn
from selfie_adapters.model.placeholder import choose_placeholder, find_sites
from selfie_adapters.model.tokens import added_tokens, encode, leading, plain_begin
from selfie_adapters.model.user_text import as_chat

QUESTION = 'What is the meaning of "{}"?'
ANSWER = 'The meaning of "{}" is "'


@dataclass(frozen=True)
class BoundPrompt:
    """A prompt as the token ids of one tokenizer.

    `sites` are the placeholder's positions in `ids`; `end_id` is the token that ends an answer
    after its closing quote. `prefix_ids` and `suffix_ids` split `ids` before the first site.
    """

    prompt: SoftPrompt
    ids: tuple[int, ...]
    sites: tuple[int, ...]
    placeholder_id: int
    end_id: int

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        return self.ids[: self.sites[0]]

    @property
    def suffix_ids(self) -> tuple[int, ...]:
        return self.ids[self.sites[0] :]


@dataclass(frozen=True)
class SoftPrompt:
    """Template text with a placeholder: one existing token that each soft token replaces.

    `end` is the end-of-turn token that follows the label and its closing quote; None takes that
    of the tokenizer's chat format, or else its end-of-text token.
    """

    template: str
    placeholder: str
    end: str | None = None

    @classmethod
    def for_tokenizer(cls, tokenizer: PreTrainedTokenizerBase) -> SoftPrompt:
        """The published question in the tokenizer's own chat format, or as plain text.

        Raises PromptError if the chat template takes no user turn, or no token of the vocabulary
        can be the placeholder.
        """
        return choose_prompt(tokenizer).prompt

    def bind(self, tokenizer: PreTrainedTokenizerBase) -> BoundPrompt:
        """Token ids and placeholder sites, checked.

        Raises PromptError if the placeholder is not one token, is not in the template, or is the
        end token; if the template does not begin with exactly one begin-of-text token where the
        model requires one; or if the tokenizer adds a token that the template does not contain.
        """
        ids = tuple(encode(tokenizer, self.template))
        sites = find_sites(tokenizer, ids, self.placeholder)
        written = self.template.count(self.placeholder)
        if written and not sites:
            self._single_token(tokenizer, self.placeholder)
        if not sites or len(sites) != written:
            raise PromptError(
                f'placeholder "{self.placeholder}" is {written} times in the template and '
                f"{len(sites)} times among its tokens. Choose a placeholder that the "
                "tokenizer does not split (an unused special token)."
            )
        _check_begin_token(tokenizer, ids, self.template)
        _check_nothing_added(tokenizer, ids, self.template)
        end = self.end or end_of_turn(tokenizer)
        if end is None:
            raise PromptError(
                f"{tokenizer.name_or_path} has no end token. Pass one: SoftPrompt(…, end=…)."
            )
        end_id, placeholder_id = self._single_token(tokenizer, str(end)), ids[sites[0]]
        if end_id == placeholder_id:
            raise PromptError(
                f'placeholder "{self.placeholder}" is the token that ends an answer. Choose '
                "another one: selfie prompt show --model … names one that fits."
            )
        return BoundPrompt(self, ids, sites, placeholder_id, end_id)

    @staticmethod
    def _single_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
        ids = encode(tokenizer, text)
        if len(ids) != 1:
            free = list(added_tokens(tokenizer).values())
            raise PromptError(
                f'"{text}" is {len(ids)} tokens for {tokenizer.name_or_path}; one is needed. '
                f"Single special tokens of this tokenizer: {', '.join(free[:12])}."
            )
        return ids[0]


@dataclass(frozen=True)
class PromptChoice:
    """A prompt, and why its text and its placeholder are what they are."""

    prompt: SoftPrompt
    template_origin: str
    placeholder_origin: str


def choose_prompt(
    tokenizer: PreTrainedTokenizerBase,
    template: str | None = None,
    placeholder: str | None = None,
    base: PromptChoice | None = None,
    end: str | None = None,
) -> PromptChoice:
    """The prompt to use: what the user gives, else `base` (an adapter's), else the tokenizer's own.

    template without placeholder: it contains the placeholder of the prompt it replaces. placeholder
    without template: the prompt's text with this token in place of its own. end: the end-of-turn
    token. Raises PromptError where a part that is not given cannot be derived.
    """
    given = "given by the user"
    if template is not None and placeholder is not None:
        return PromptChoice(SoftPrompt(template, placeholder, end), given, given)
    base = base or _own(tokenizer, placeholder)
    prompt = base.prompt
    end = end or prompt.end
    if template is not None:
        chosen = SoftPrompt(template, prompt.placeholder, end)
        return PromptChoice(chosen, given, base.placeholder_origin)
    if placeholder is not None:
        text = prompt.template.replace(prompt.placeholder, placeholder)
        return PromptChoice(SoftPrompt(text, placeholder, end), base.template_origin, given)
    chosen = SoftPrompt(prompt.template, prompt.placeholder, end)
    return PromptChoice(chosen, base.template_origin, base.placeholder_origin)


def _own(tokenizer: PreTrainedTokenizerBase, placeholder: str | None) -> PromptChoice:
    """The question in the tokenizer's chat format; for a base model, as two lines of text."""
    known = chat_format(tokenizer)
    if known is None:
        begin = str(tokenizer.bos_token) if plain_begin(tokenizer) is not None else ""
        template, origin = f"{begin}{QUESTION}\n{ANSWER}", "plain text: there is no chat template"
    else:
        template, origin = known.turn(QUESTION) + known.gap + ANSWER, known.origin
    if placeholder is not None:
        chosen = placeholder, ""
    else:
        end = end_of_turn(tokenizer)
        preferred = known.placeholders if known else ()
        chosen = choose_placeholder(tokenizer, template, preferred, [end] if end else [])
    prompt = SoftPrompt(template.replace("{}", chosen[0]), chosen[0])
    return PromptChoice(prompt, origin, chosen[1])


def _check_begin_token(
    tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...], template: str
) -> None:
    begin = tokenizer.bos_token_id
    if not isinstance(begin, int):
        return
    usual = _usual_begin_tokens(tokenizer, begin)
    if not usual and leading(ids, begin) < 2:
        return
    first = leading(ids, begin)
    # In ChatML formats the begin token opens every turn; elsewhere it may occur only once.
    count = ids.count(begin) if usual == 1 and first == 1 else first
    if count != 1:
        raise PromptError(
            f'the template begins with or contains {count} "{tokenizer.bos_token}" tokens; this '
            f"model requires exactly one. It begins: {template[:60]!r}."
        )


def _check_nothing_added(
    tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...], template: str
) -> None:
    """Some tokenizers add tokens whatever they are asked for (invariant 3)."""
    for where, token in (("before", ids[0]), ("after", ids[-1])):
        text = str(tokenizer.convert_ids_to_tokens(token))
        if token in tokenizer.all_special_ids and text not in template:
            raise PromptError(
                f'{tokenizer.name_or_path} puts "{text}" {where} every text, even when it is asked '
                "not to add special tokens. Use a tokenizer without it."
            )


def _usual_begin_tokens(tokenizer: PreTrainedTokenizerBase, begin: int) -> int:
    """How many begin-of-text tokens this tokenizer's own prompts (a chat, else plain) have.

    0 if they do not begin with one: having one defined says little, GPT-NeoX never uses its own.
    """
    if tokenizer.chat_template:
        try:
            ids = encode(tokenizer, as_chat(tokenizer, "a", "template"))
        except PromptError:  # a template that takes no user turn alone
            ids = list(tokenizer("a")["input_ids"])
    else:
        ids = list(tokenizer("a")["input_ids"])
    return ids.count(begin) if ids[:1] == [begin] else 0
