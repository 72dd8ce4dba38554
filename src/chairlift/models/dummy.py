"""A stand-in for a tokenizer, where a checkpoint's configs are at hand and its vocabulary isn't."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import BatchEncoding

WORDS = 30_000
"""Ids that are given to words; every vocabulary in use is larger."""
FIRST_WORD = 10
PADDING = 0

_WORD = re.compile(r"\w+|[^\w\s]")


class DummyTokenizer:
    """One id for each word or mark, padded as a real tokenizer pads.

    Args:
        config: ``tokenizer_config.json``.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.model_max_length = int(config.get("model_max_length", 512))

    def __call__(
        self,
        text: Sequence[str],
        *,
        padding: str | bool = False,
        max_length: int | None = None,
        **options: Any,
    ) -> BatchEncoding:
        """``input_ids`` and ``attention_mask``, each ``(texts, length)``."""
        limit = self.model_max_length if max_length is None else max_length
        words = [_WORD.findall(one)[:limit] or [""] for one in text]
        length = limit if padding == "max_length" else max(map(len, words))
        ids = torch.full((len(words), length), PADDING)
        mask = torch.zeros(len(words), length, dtype=torch.long)
        for row, text_words in enumerate(words):
            for column, word in enumerate(text_words):
                ids[row, column] = FIRST_WORD + sum(word.encode()) % (WORDS - FIRST_WORD)
            mask[row, : len(text_words)] = 1
        return BatchEncoding({"input_ids": ids, "attention_mask": mask})

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]], **options: Any) -> str:
        """The messages' contents, one after the other."""
        return " ".join(message["content"] for message in messages)
