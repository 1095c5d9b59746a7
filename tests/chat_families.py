"""Tokenizers of 22 model families, built in memory: their special tokens, their way of beginning
a text, and a short chat template with the turns, default system prompts and thoughts of each.

The vocabularies are tiny. "byte" ones are byte-level BPE like those of GPT-2 and Llama 3; "space"
ones put "▁" for spaces and before a text, like those of Llama 2 and Mistral.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_LETTERS += "\n\"'?!.,:;<|>_/[](){}#-=&@*"
_RARE = "※§"


@dataclass(frozen=True)
class Family:
    """special: special tokens. added: tokens that are whole without being special. begins: plain
    texts begin with `bos`. before, between: what a bare turn must look like; placeholder, end: what
    must be chosen."""

    name: str
    special: tuple[str, ...]
    bos: str | None
    eos: str
    begins: bool
    template: str | None
    before: str
    between: str
    placeholder: str
    end: str
    pad: str | None = None
    kind: str = "byte"
    gap: str = ""


def _turns(opening: str, closing: str, generation: str, first: str = "") -> str:
    """A template whose turns are alike: opening and closing may use m.role."""
    return (
        f"{first}{{% for m in messages %}}{opening}{{{{ m.content }}}}{closing}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{generation}{{% endif %}}"
    )


_CHATML = _turns(
    "<|im_start|>{{ m.role }}\n", "<|im_end|>\n{{ '' }}", "{{ '<|im_start|>assistant\n' }}"
)
_DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are NAME.<|im_end|>\n{{ '' }}"
    "{% endif %}"
)
_NO_THOUGHTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}"
    "<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{{ '' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}"
    "{% endif %}{% endif %}"
)
_INSTRUCTION = (
    "{{ bos_token }}{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate user and assistant') }}{% endif %}"
    "{% if m.role == 'user' %}[INST]OPEN{{ m.content }}CLOSE[/INST]{% else %}"
    "{{ ' ' + m.content }}END{{ eos_token }}{% endif %}{% endfor %}"
)
_LLAMA3 = "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ '' }}"

FAMILIES = (
    Family(
        "Llama 3.2",
        (
            *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
            *("<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
        ),
        "<|begin_of_text|>",
        "<|eot_id|>",
        True,
        _turns(
            _LLAMA3,
            "<|eot_id|>",
            "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}",
            "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\n"
            "Today Date: {{ strftime_now('%d %b %Y') }}\n\n<|eot_id|>",
        ),
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|reserved_special_token_0|>",
        "<|eot_id|>",
    ),
    Family(
        "Llama 2",
        ("<unk>", "<s>", "</s>"),
        "<s>",
        "</s>",
        True,
        "{% for m in messages %}{% if m.role == 'user' %}"
        "{{ bos_token + '[INST] ' + m.content.strip() + ' [/INST]' }}{% else %}"
        "{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}",
        "<s>[INST] ",
        " [/INST]",
        "※",
        "</s>",
        kind="space",
        gap=" ",
    ),
    Family(
        "SmolLM2",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>"),
        "<|im_start|>",
        "<|im_end|>",
        False,
        _DEFAULT_SYSTEM + _CHATML,
        "<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        "<reponame>",
        "<|im_end|>",
    ),
    Family(
        "SmolLM3",
        (
            *("<|begin_of_text|>", "<|end_of_text|>", "<think>", "</think>", "<|im_start|>"),
            *("<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
            *("<|reserved_special_token_2|>",),
        ),
        None,
        "<|im_end|>",
        False,
        "<|im_start|>system\n## Metadata\n\nToday Date: {{ strftime_now('%d %B %Y') }}\n"
        "Reasoning Mode: /no_think<|im_end|>\n{{ '' }}" + _NO_THOUGHTS,
        "<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "<|reserved_special_token_2|>",
        "<|im_end|>",
    ),
    Family(
        "Hermes 3",
        (
            *("<|begin_of_text|>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>"),
            *("<|end_header_id|>", "<|eot_id|>", "<|reserved_special_token_9|>"),
        ),
        "<|begin_of_text|>",
        "<|im_end|>",
        True,
        "{{ bos_token }}" + _DEFAULT_SYSTEM + _CHATML,
        "<|begin_of_text|><|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        "<|reserved_special_token_9|>",
        "<|im_end|>",
    ),
    Family(
        "Qwen 2.5",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|image_pad|>"),
        None,
        "<|im_end|>",
        False,
        _DEFAULT_SYSTEM + _CHATML,
        "<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        "<|object_ref_start|>",
        "<|im_end|>",
        "<|endoftext|>",
    ),
    Family(
        "Qwen 3",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|vision_pad|>"),
        None,
        "<|im_end|>",
        False,
        _NO_THOUGHTS,
        "<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        "<|object_ref_start|>",
        "<|im_end|>",
        "<|endoftext|>",
    ),
    Family(
        "Gemma 2",
        ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<unused0>", "<unused1>"),
        "<bos>",
        "<eos>",
        True,
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}<start_of_turn>"
        "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
        "{{ '' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}"
        "{% endif %}",
        "<bos><start_of_turn>user\n",
        "<end_of_turn>\n<start_of_turn>model\n",
        "<unused0>",
        "<end_of_turn>",
        "<pad>",
    ),
    Family(
        "Gemma 4",
        ("<pad>", "<eos>", "<bos>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<unused7>"),
        "<bos>",
        "<eos>",
        True,
        "{{ bos_token }}{% for m in messages %}<|turn>"
        "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<turn|>\n"
        "{{ '' }}{% endfor %}{% if add_generation_prompt %}{{ '<|turn>model\n' }}"
        "{% if not enable_thinking %}{{ '<|channel>thought\n<channel|>' }}{% endif %}{% endif %}",
        "<bos><|turn>user\n",
        "<turn|>\n<|turn>model\n<|channel>thought\n<channel|>",
        "<unused7>",
        "<turn|>",
        "<pad>",
    ),
    Family(
        "Mistral 7B v0.1",
        ("<unk>", "<s>", "</s>"),
        "<s>",
        "</s>",
        True,
        _INSTRUCTION.replace("OPEN", " ").replace("CLOSE", " ").replace("END", ""),
        "<s>[INST] ",
        " [/INST]",
        "※",
        "</s>",
        kind="space",
        gap=" ",
    ),
    Family(
        "Mistral Small",
        ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "<SPECIAL_20>"),
        "<s>",
        "</s>",
        True,
        "{{ bos_token }}{% if messages[0].role != 'system' %}[SYSTEM_PROMPT]Today is "
        "{{ strftime_now('%Y-%m-%d') }}.[/SYSTEM_PROMPT]{% endif %}{% for m in messages %}"
        "{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]{% elif m.role == 'assistant' %}"
        "{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
        "<s>[INST]",
        "[/INST]",
        "<SPECIAL_20>",
        "</s>",
    ),
    Family(
        "OLMo 2",
        ("<|endoftext|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|extra_id_0|>"),
        "<|endoftext|>",
        "<|endoftext|>",
        False,
        "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}"
        "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% if not loop.last or "
        "m.role == 'user' %}{{ '\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|assistant|>\n' }}{% endif %}",
        "<|endoftext|><|user|>\n",
        "\n<|assistant|>\n",
        "<|extra_id_0|>",
        "<|endoftext|>",
        "<|pad|>",
    ),
    Family(
        "Phi 3",
        (
            *("<unk>", "<s>", "<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|end|>"),
            *("<|user|>",),
        ),
        "<s>",
        "<|endoftext|>",
        False,
        _turns(
            "{{ '<|' + m.role + '|>\n' }}", "{{ '<|end|>\n' }}", "{{ '<|assistant|>\n' }}"
        ).replace(
            "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}",
            "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}",
        ),
        "<|user|>\n",
        "<|end|>\n<|assistant|>\n",
        "<|placeholder1|>",
        "<|end|>",
        "<|endoftext|>",
    ),
    Family(
        "Phi 4",
        ("<|endoftext|>", "<|dummy_0|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>"),
        "<|endoftext|>",
        "<|im_end|>",
        False,
        _turns(
            "<|im_start|>{{ m.role }}<|im_sep|>", "<|im_end|>", "<|im_start|>assistant<|im_sep|>"
        ),
        "<|im_start|>user<|im_sep|>",
        "<|im_end|><|im_start|>assistant<|im_sep|>",
        "<|dummy_0|>",
        "<|im_end|>",
    ),
    Family(
        "Granite 3",
        ("<|end_of_text|>", "<fim_prefix>", "<reponame>", "<|start_of_role|>", "<|end_of_role|>"),
        "<|end_of_text|>",
        "<|end_of_text|>",
        False,
        _turns(
            "<|start_of_role|>{{ m.role }}<|end_of_role|>",
            "<|end_of_text|>\n{{ '' }}",
            "<|start_of_role|>assistant<|end_of_role|>",
            "{% if messages[0].role != 'system' %}<|start_of_role|>system<|end_of_role|>Today's "
            "Date: {{ strftime_now('%B %d, %Y') }}.<|end_of_text|>\n{{ '' }}{% endif %}",
        ),
        "<|start_of_role|>user<|end_of_role|>",
        "<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>",
        "<reponame>",
        "<|end_of_text|>",
    ),
    Family(
        "gpt-oss",
        (
            *("<|startoftext|>", "<|endoftext|>", "<|reserved_200000|>", "<|return|>"),
            *("<|channel|>", "<|start|>", "<|end|>", "<|message|>"),
        ),
        "<|startoftext|>",
        "<|return|>",
        False,
        "{% macro system() %}Current date: {{ strftime_now('%Y-%m-%d') }}{% endmacro %}"
        "<|start|>system<|message|>{{ system() }}<|end|>{% for m in messages %}"
        "{% if m.role == 'user' %}<|start|>user<|message|>{{ m.content }}<|end|>{% else %}"
        "<|start|>assistant<|channel|>final<|message|>{{ m.content }}"
        "{% if loop.last %}<|return|>{% else %}<|end|>{% endif %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}",
        "<|start|>user<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
        "<|reserved_200000|>",
        "<|return|>",
        "<|endoftext|>",
    ),
    Family(
        "DeepSeek R1",
        (
            *("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"),
            *("<think>", "</think>", "<｜place▁holder▁no▁0｜>"),
        ),
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        True,
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<｜User｜>{{ m.content }}"
        "{% else %}<｜Assistant｜>{{ m.content.split('</think>')[-1] }}{{ eos_token }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}",
        "<｜begin▁of▁sentence｜><｜User｜>",
        "<｜Assistant｜><think>\n\n</think>\n\n",
        "<｜place▁holder▁no▁0｜>",
        "<｜end▁of▁sentence｜>",
    ),
    Family(
        "Command R",
        (
            *("<PAD>", "<UNK>", "<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
            *("<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|EXTRA_0_TOKEN|>"),
        ),
        "<BOS_TOKEN>",
        "<|END_OF_TURN_TOKEN|>",
        True,
        "{{ bos_token }}{% for m in messages %}<|START_OF_TURN_TOKEN|>"
        "{{ '<|USER_TOKEN|>' if m.role == 'user' else '<|CHATBOT_TOKEN|>' }}"
        "{{ m.content | trim }}<|END_OF_TURN_TOKEN|>{% endfor %}{% if add_generation_prompt %}"
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}",
        "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
        "<|END_OF_TURN_TOKEN|><|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        "<|EXTRA_0_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
        "<PAD>",
    ),
    Family(
        "Zephyr",  # leaves the begin token to the tokenizer
        ("<unk>", "<s>", "</s>"),
        "<s>",
        "</s>",
        True,
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}",
        "<s><|user|>\n",
        "</s>\n<|assistant|>\n",
        "※",
        "</s>",
        kind="space",
    ),
    Family(
        "GLM 4",
        (
            *("<|endoftext|>", "[MASK]", "[gMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>"),
            *("<|assistant|>", "<|observation|>"),
        ),
        None,
        "<|endoftext|>",
        False,
        "[gMASK]<sop>{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{{ '\n' }}{% endif %}",
        "[gMASK]<sop><|user|>\n",
        "<|assistant|>\n",
        "<eop>",
        "<|endoftext|>",
    ),
    Family(
        "Falcon 7B instruct",
        (">>TITLE<<", ">>ABSTRACT<<", "<|endoftext|>"),
        None,
        "<|endoftext|>",
        False,
        "{% for m in messages %}{% if not loop.first %}{{ '\n' }}{% endif %}"
        "{{ m.role.title() + ': ' + m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '\nAssistant:' }}{% endif %}",
        "User: ",
        "\nAssistant:",
        ">>TITLE<<",
        "<|endoftext|>",
        gap=" ",
    ),
    Family(
        "GPT-2", ("<|endoftext|>",), "<|endoftext|>", "<|endoftext|>", False, None,
        "", "\n", "※", "<|endoftext|>",
    ),
    Family(
        "Pythia", ("<|endoftext|>", "<|padding|>"), "<|endoftext|>", "<|endoftext|>", False, None,
        "", "\n", "※", "<|endoftext|>",
    ),
    Family(
        "OPT", ("</s>", "<pad>", "<unk>"), "</s>", "</s>", True, None,
        "</s>", "\n", "※", "</s>", "<pad>",
    ),
    Family(
        "Llama 2 base", ("<unk>", "<s>", "</s>"), "<s>", "</s>", True, None,
        "<s>", "\n", "※", "</s>", kind="space",
    ),
)  # fmt: skip


def tokenizer_of(family: Family) -> PreTrainedTokenizerFast:
    """The family's tokenizer."""
    backend = _byte_level() if family.kind == "byte" else _with_spaces()
    for token in family.special:
        backend.add_special_tokens([AddedToken(token, special=True, normalized=False)])
    if family.begins and family.bos is not None:
        begin = (family.bos, backend.token_to_id(family.bos))
        backend.post_processor = TemplateProcessing(
            single=f"{family.bos} $A", special_tokens=[begin]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    named = {"bos_token": family.bos, "eos_token": family.eos, "pad_token": family.pad}
    tokenizer.add_special_tokens({key: value for key, value in named.items() if value})
    if "<unk>" in family.special:
        tokenizer.unk_token = "<unk>"
    tokenizer.chat_template = family.template
    return tokenizer


def _byte_level() -> Tokenizer:
    """All bytes, common merges, and the rare characters as one token each."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(alphabet)}
    merges: list[tuple[str, str]] = []
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for text in ('"?', " of", " the", *_RARE):
        ((word, _),) = level.pre_tokenize_str(text)
        for end in range(2, len(word) + 1):
            if word[:end] not in vocabulary:
                merges.append((word[: end - 1], word[end - 1]))
                vocabulary[word[:end]] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = level
    backend.decoder = decoders.ByteLevel()
    return backend


def _with_spaces() -> Tokenizer:
    """Unigrams with "▁" before a text and for every space, in one piece with the next letter."""
    pieces = [("<unk>", 0.0), ("▁", -3.0)]
    pieces += [(letter, -3.0) for letter in _LETTERS + _RARE]
    pieces += [(f"▁{letter}", -4.0) for letter in _LETTERS]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    backend.decoder = decoders.Metaspace("▁", prepend_scheme="first")
    return backend
