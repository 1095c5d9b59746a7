"""The fixed question around the soft token: template, placeholder, and where it lands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from selfie_adapters.errors import PromptError

Chat = Literal["template", "bare", "none"]

QUESTION = 'What is the meaning of "{}"?'
ANSWER = 'The meaning of "{}" is "'


@dataclass(frozen=True)
class _Family:
    """A chat format: how it is recognised, its wrapping, and a free special token."""

    marker: str  # a token that only this family's vocabulary has
    before: str
    between: str
    placeholders: tuple[str, ...]
    end: str


# Tried in order: Gemma and Llama 3 have markers of their own; Qwen speaks ChatML with other
# free tokens, so it comes before plain ChatML.
_FAMILIES = {
    "llama3": _Family(
        "<|start_header_id|>",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ("<|reserved_special_token_0|>",),
        "<|eot_id|>",
    ),
    "gemma": _Family(
        "<start_of_turn>",
        "<bos><start_of_turn>user\n",
        "<end_of_turn>\n<start_of_turn>model\n",
        ("<unused0>",),
        "<end_of_turn>",
    ),
    "qwen": _Family(
        "<|object_ref_start|>",
        "<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        ("<|object_ref_start|>",),
        "<|im_end|>",
    ),
    "chatml": _Family(
        "<|im_start|>",
        "<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        ("<reponame>", "<repo_name>", "<|reserved_0|>", "<unk>"),
        "<|im_end|>",
    ),
}


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
        """The published question in the chat format that this tokenizer's special tokens show.

        Raises PromptError if no built-in format fits.
        """
        family = _family(tokenizer)
        free = family.placeholders if family else ()
        placeholder = next((p for p in free if token_id(tokenizer, p) is not None), None)
        if placeholder is not None:
            question = bare_chat(tokenizer, QUESTION.format(placeholder))
            return cls(question + ANSWER.format(placeholder), placeholder)
        raise PromptError(
            f"{tokenizer.name_or_path}: no built-in prompt for this tokenizer "
            f"(known formats: {', '.join(_FAMILIES)}). "
            "Pass a template and a placeholder: SoftPrompt(template, placeholder), or "
            "soft_prompt.template and soft_prompt.reserved_token in a configuration."
        )

    def bind(self, tokenizer: PreTrainedTokenizerBase) -> BoundPrompt:
        """Token ids and placeholder sites, checked.

        Raises PromptError if the placeholder is not one token, is not in the template, or if the
        template does not begin with exactly one begin-of-text token where the model wants one.
        """
        placeholder_id = self._single_token(tokenizer, self.placeholder)
        ids = tuple(encode(tokenizer, self.template))
        sites = tuple(i for i, token in enumerate(ids) if token == placeholder_id)
        written = self.template.count(self.placeholder)
        if not sites or len(sites) != written:
            raise PromptError(
                f'placeholder "{self.placeholder}" stands {written} times in the template and '
                f"{len(sites)} times among its tokens. Choose a placeholder that the tokenizer "
                "keeps whole (an unused special token)."
            )
        _check_begin_token(tokenizer, ids, self.template)
        end = self.end or end_of_turn(tokenizer)
        if end is None:
            raise PromptError(
                f"{tokenizer.name_or_path} has no end token. Pass one: SoftPrompt(…, end=…)."
            )
        end_id = self._single_token(tokenizer, str(end))
        return BoundPrompt(self, ids, sites, placeholder_id, end_id)

    @staticmethod
    def _single_token(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
        ids = encode(tokenizer, text)
        if len(ids) != 1:
            free = [str(token) for token in tokenizer.added_tokens_decoder.values()]
            raise PromptError(
                f'"{text}" is {len(ids)} tokens for {tokenizer.name_or_path}; one is needed. '
                f"Single special tokens of this tokenizer: {', '.join(free[:12])}."
            )
        return ids[0]


def _family(tokenizer: PreTrainedTokenizerBase) -> _Family | None:
    known = (f for f in _FAMILIES.values() if token_id(tokenizer, f.marker) is not None)
    return next(known, None)


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The token that ends an answer in the tokenizer's chat format, else its end-of-text token."""
    family = _family(tokenizer)
    end = family.end if family else tokenizer.eos_token
    return None if end is None else str(end)


def bare_chat(tokenizer: PreTrainedTokenizerBase, user: str) -> str:
    """One user turn and the opening of the answer, with no system prompt, as text.

    Raises PromptError if the tokenizer's special tokens show no known chat format.
    """
    family = _family(tokenizer)
    if family is None:
        raise PromptError(
            f"{tokenizer.name_or_path}: no chat format known for this tokenizer "
            f"(known: {', '.join(_FAMILIES)}). Use the tokenizer's own template or plain text."
        )
    return family.before + user + family.between


def as_chat(tokenizer: PreTrainedTokenizerBase, user: str, chat: Chat) -> str:
    """The text the model shall see for one user turn.

    chat: the tokenizer's own "template" (with whatever system prompt it brings), a "bare" turn
    without one, or "none": the text as it stands. Raises PromptError where there is no such format.
    """
    if chat == "none":
        return user
    if chat == "bare":
        return bare_chat(tokenizer, user)
    if not tokenizer.chat_template:
        raise PromptError(
            f"{tokenizer.name_or_path} has no chat template. Pass chat='none' (--chat none)."
        )
    turns = [{"role": "user", "content": user}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of `text`, special tokens recognised, none added (invariant 3)."""
    return tokenizer.encode(text, add_special_tokens=False)


def token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int | None:
    """The id of `token` if it is in the vocabulary as one piece."""
    # get_vocab() would build the whole dictionary on every call.
    found = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(found, int) or tokenizer.convert_ids_to_tokens(found) != token:
        return None  # unknown: None, or the id of the unknown token
    return found


def _check_begin_token(
    tokenizer: PreTrainedTokenizerBase, ids: tuple[int, ...], template: str
) -> None:
    begin = tokenizer.bos_token_id
    if not isinstance(begin, int):
        return
    usual = _usual_begin_tokens(tokenizer, begin)
    if not usual:
        return
    leading = next((i for i, token in enumerate(ids) if token != begin), len(ids))
    # In ChatML formats the begin token opens every turn; elsewhere it may stand only once.
    count = ids.count(begin) if usual == 1 and leading == 1 else leading
    if count != 1:
        raise PromptError(
            f'the template begins with or holds {count} "{tokenizer.bos_token}" tokens; this model '
            f"wants exactly one. It begins: {template[:60]!r}."
        )


def _usual_begin_tokens(tokenizer: PreTrainedTokenizerBase, begin: int) -> int:
    """How many begin-of-text tokens this tokenizer's own texts (a chat, else plain) hold.

    0 if they do not begin with one: having one defined says little, GPT-NeoX never uses its own.
    """
    if tokenizer.chat_template:
        turn = [{"role": "user", "content": "a"}]
        chat = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        ids = encode(tokenizer, str(chat))
    else:
        ids = list(tokenizer("a")["input_ids"])
    return ids.count(begin) if ids[:1] == [begin] else 0
