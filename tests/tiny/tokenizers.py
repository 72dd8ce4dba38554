"""Tokenizers whose words are single characters."""

from __future__ import annotations

import string

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer, Qwen2Tokenizer, T5Tokenizer

from tests.builders import create_tokenizer

# Qwen-Image's pipeline drops the first 34 tokens, which has to be what precedes the prompt. So
# the words of its template are one token each.
_TEMPLATE_WORDS = [
    *("system", "user", "assistant", "Describe", "Ġthe", "Ġimage", "Ġby", "Ġdetailing"),
    *("Ġcolor", "Ġshape", "Ġsize", "Ġtexture", "Ġquantity", "Ġtext", "Ġspatial"),
    *("Ġrelationships", "Ġof", "Ġobjects", "Ġand", "Ġbackground"),
]

_CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}"""


def create_padding_tokenizer(length: int = 16) -> CLIPTokenizer:
    """CLIP's with a padding token of its own, like the second ones of SDXL and SD 3."""
    tokenizer = create_tokenizer(length)
    tokenizer.add_special_tokens({"pad_token": "!"})
    return tokenizer


def create_t5_tokenizer(length: int = 512) -> T5Tokenizer:
    """Printable ASCII; the rest is unknown."""
    letters = string.ascii_letters + string.digits + string.punctuation
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocabulary += [(letter, -2.0) for letter in letters]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=length)


def create_qwen_tokenizer(length: int = 4096) -> Qwen2Tokenizer:
    """Bytes, and the words of Qwen-Image's template."""
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet())]
    merges = {
        (word[:end], word[end]): None for word in _TEMPLATE_WORDS for end in range(1, len(word))
    }
    tokens += [first + second for first, second in merges]
    tokenizer = Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=list(merges),
        model_max_length=length,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer
