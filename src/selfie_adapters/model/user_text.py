"""A user's text as the model sees it: its chat format around it, one begin token before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from transformers import PreTrainedTokenizerBase

from selfie_adapters.config.types import Chat
from selfie_adapters.errors import PromptError, nearest
from selfie_adapters.model.chat_format import chat_format
from selfie_adapters.model.chat_template import render
from selfie_adapters.model.tokens import begun_ids


class UserText:
    """One chat format for many prompts: each that is read, captured or asked is formatted by it.

    chat: the tokenizer's own "template" (with whatever system prompt it brings), a "bare" turn
    without one, or "none": the text as it is. Raises PromptError where there is no such format.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, chat: Chat) -> None:
        if chat not in get_args(Chat):
            raise PromptError(f"chat={chat!r}: unknown. {nearest(chat, get_args(Chat))}")
        self._tokenizer, self._chat = tokenizer, chat
        self._bare = _bare_format(tokenizer) if chat == "bare" else None
        self._begin = ""  # a begin token that the format or the tokenizer puts before the turn
        if chat != "none":
            (ids,) = begun_ids(tokenizer, [self.text("a")])
            if ids[:1] == [tokenizer.bos_token_id]:
                self._begin = str(tokenizer.bos_token)

    def text(self, user: str) -> str:
        """The text around and of one user turn.

        Raises PromptError for a text that brings a begin token into a chat turn: it is a rendered
        chat already, and the model would see two beginnings.
        """
        if self._chat == "none":
            return user
        self._check_begin(user)
        if self._bare is not None:
            return self._bare.turn(user)
        return render(self._tokenizer, [{"role": "user", "content": user}])

    def conversation(self, turns: Sequence[Mapping[str, Any]]) -> str:
        """The text of a conversation, by the tokenizer's chat template.

        turns: role and content of each. The opening of an answer follows, unless the last turn is
        one. Raises PromptError for another chat format than "template", for a turn that brings a
        begin token, and where the template refuses the turns.
        """
        if self._chat != "template":
            raise PromptError(
                f"chat={self._chat!r} is a format of one user turn; a conversation needs the "
                "tokenizer's chat template (--chat template)."
            )
        for turn in turns:
            self._check_begin(str(turn["content"]))
        answered = turns[-1]["role"] == "assistant"
        return render(self._tokenizer, [dict(turn) for turn in turns], not answered)

    def _check_begin(self, text: str) -> None:
        if self._begin and self._begin in text:
            raise PromptError(
                f'the text contains the begin token "{self._begin}": {text[:60]!r}. Remove it; '
                "for a text that is a rendered chat already, pass chat='none' (--chat none)."
            )

    def ids(self, user: str) -> list[int]:
        """Token ids of `text`, with exactly one begin token in front where the model has one."""
        return begun_ids(self._tokenizer, [self.text(user)])[0]


def as_chat(tokenizer: PreTrainedTokenizerBase, user: str, chat: Chat) -> str:
    """`UserText.text` of one text; the begin token that plain text gets is not in it."""
    return UserText(tokenizer, chat).text(user)


def usual_chat(tokenizer: PreTrainedTokenizerBase, *stated: Chat | None) -> Chat:
    """The first chat format that is stated (by the user, the adapter, the mean file).

    Where none is: the chat template, or plain text for a tokenizer that has none.
    """
    for chat in stated:
        if chat is not None:
            return chat
    return "template" if tokenizer.chat_template else "none"


def _bare_format(tokenizer: PreTrainedTokenizerBase):
    found = chat_format(tokenizer)
    if found is None:
        raise PromptError(
            f"{tokenizer.name_or_path}: no chat format known for this tokenizer, and no chat "
            "template. Pass chat='none' (--chat none)."
        )
    return found
