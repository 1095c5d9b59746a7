"""One state of a text, labelled at the layers that an adapter knows: a first look, without files.

The state is that of the text's own last token, or, of a concept, that of the last token of the
question about it: the two kinds of position that reading adapters are trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from selfie_adapters.config.prepare import QUESTION
from selfie_adapters.errors import PromptError
from selfie_adapters.labelling.confidence import Confidence
from selfie_adapters.labelling.labeller import Labeller
from selfie_adapters.model import FrozenModel
from selfie_adapters.model.user_text import Chat, UserText
from selfie_adapters.reading.calibration import MAX_NEW_TOKENS
from selfie_adapters.reading.means import read_means
from selfie_adapters.reading.plan import ReadingPlan, plan_reading
from selfie_adapters.reading.read import Cell, read_cells
from selfie_adapters.sources.topics.frames import token_at, token_ends


@dataclass(frozen=True)
class Look:
    """Labels of the state at one token of a prompt, one cell per layer, in rising order."""

    plan: ReadingPlan
    cells: tuple[Cell, ...]

    @property
    def token(self) -> str:
        """Text of the token."""
        return self.plan.tokens[self.plan.positions[0]].text


def text_plan(model: FrozenModel, text: str, layers: Sequence[int], chat: Chat) -> ReadingPlan:
    """The state at the last token of `text` itself, wherever its chat format puts it.

    Raises PromptError for a text without a word, and for a chat format that changes it.
    """
    user = text.strip()
    if not user:
        raise PromptError("the text is empty. Give at least one word.")
    whole = UserText(model.tokenizer, chat).text(user)
    start = whole.rfind(user)
    if start < 0:
        raise PromptError(
            f"the chat template of {model.name} changes the text {user[:60]!r}, so its last token "
            "is not known. Pass it to selfie read, with --positions."
        )
    position = token_at(token_ends(model.tokenizer, whole), start + len(user))
    return plan_reading(model, user, layers, [position], chat)


def concept_plan(
    model: FrozenModel, name: str, layers: Sequence[int], chat: Chat, question: str | None = None
) -> ReadingPlan:
    """The state at the last token of the question about a concept, "Tell me about {}." by default.

    Raises PromptError for an empty name.
    """
    if not name.strip():
        raise PromptError("the concept is empty. Give its name.")
    asked = (question or QUESTION).replace("{}", name.strip())
    return plan_reading(model, asked, layers, [-1], chat)


def look(
    labeller: Labeller,
    plan: ReadingPlan,
    mean: str | None = None,
    confidence: Confidence | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    lens: bool = True,
) -> Look:
    """Greedy labels of a plan's one position, with the logit lens's words.

    mean: file of mean vectors, subtracted first. Raises like `read_cells`.
    """
    means = None if mean is None else read_means(mean, plan.layers, labeller.model.d_model)
    cells: list[Cell] = []
    for batch in read_cells(
        labeller, plan, means, confidence, max_new_tokens=max_new_tokens, lens=lens
    ):
        cells += batch
    return Look(plan, tuple(cells))
