"""Train the tokenizer and the text encoder of the bundled model.

    python -m training.text_encoder --minutes 4

The encoder is a small CLIP text model. It learns to name the attributes of a postcard from a
sentence, read off every position at or after the end of the text: those are the tokens that the
denoiser attends to, and there each has seen the whole sentence. An attribute that the sentence
doesn't mention is a class of its own. The heads are thrown away afterwards.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.average import WeightAverage
from training.postcards import ATTRIBUTES, random_postcard, sentence, some

RUNS = Path(__file__).parent / "runs"
MAX_TOKENS = 32
WIDTH = 128
MERGES = 640


def create_tokenizer() -> CLIPTokenizer:
    """A byte-level BPE: every byte is in the vocabulary, alone and at a word's end, so that no
    text is unknown; the merges come from the sentences.
    """
    rng = random.Random(0)
    corpus = [sentence(random_postcard(rng).attributes(), rng).lower() for _ in range(20_000)]
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Whitespace(),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=512 + MERGES,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(corpus, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    tokens = alphabet + [byte + "</w>" for byte in alphabet]
    tokens += ["".join(pair) for pair in merges if "".join(pair) not in tokens]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


def create_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """``(count, 32)`` token ids, padded and truncated as the stock pipeline does."""
    encoded = tokenizer(
        texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    return encoded.input_ids


class AttributeHeads(nn.Module):
    """One linear classifier an attribute; the last class means «not said»."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {name: nn.Linear(WIDTH, len(values) + 1) for name, values in ATTRIBUTES.items()}
        )

    def forward(self, hidden: Tensor) -> dict[str, Tensor]:
        return {name: head(hidden) for name, head in self.heads.items()}


def labelled_sentences(count: int, rng: random.Random) -> tuple[list[str], dict[str, Tensor]]:
    """Sentences that leave out some attributes, and for each attribute the class it names."""
    texts, labels = [], {name: [] for name in ATTRIBUTES}
    for _ in range(count):
        attributes = random_postcard(rng).attributes()
        said = some(attributes, rng, keep=0.8)
        texts.append(sentence(said, rng))
        for name, values in ATTRIBUTES.items():
            labels[name].append(values.index(said[name]) if name in said else len(values))
    return texts, {name: torch.tensor(classes) for name, classes in labels.items()}


def train(minutes: float, batch: int, learning_rate: float) -> None:
    RUNS.mkdir(exist_ok=True)
    torch.manual_seed(0)
    tokenizer = create_tokenizer()
    tokenizer.save_pretrained(RUNS / "tokenizer")
    encoder, heads = create_text_encoder(tokenizer), AttributeHeads()
    optimizer = torch.optim.AdamW([*encoder.parameters(), *heads.parameters()], learning_rate)
    average = WeightAverage(encoder, decay=0.995)
    rng, start, step, progress = random.Random(1), time.monotonic(), 0, 0.0
    while progress < 1:
        progress = (time.monotonic() - start) / (60 * minutes)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 100, 2 * max(0.005, 1 - progress))
        texts, labels = labelled_sentences(batch, rng)
        ids = tokenize(tokenizer, texts)
        hidden = encoder(ids).last_hidden_state
        after_end = (ids == tokenizer.eos_token_id).cumsum(1) > 0
        row, position = after_end.nonzero(as_tuple=True)
        logits = heads(hidden[row, position])
        weight = (1 / after_end.sum(1))[row]
        losses = [
            (F.cross_entropy(logits[name], labels[name][row], reduction="none") * weight).sum()
            for name in ATTRIBUTES
        ]
        loss = torch.stack(losses).sum() / batch
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(encoder)
        step += 1
        if step % 50 == 0:
            right = {
                name: ((logits[name].argmax(1) == labels[name][row]) * weight).sum().item() / batch
                for name in ATTRIBUTES
            }
            scores = " ".join(f"{name} {share:.3f}" for name, share in right.items())
            print(f"step {step} loss {loss.item():.4f} {scores} done {progress:.0%}", flush=True)
    encoder.load_state_dict(average.state_dict())
    encoder.save_pretrained(RUNS / "text_encoder")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    arguments = parser.parse_args()
    train(arguments.minutes, arguments.batch, arguments.learning_rate)
