# SPDX-License-Identifier: Apache-2.0
"""A decoder-only transformer over rows of codes, told the emotion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaModel

from recipes.slm.designs import Layout


@dataclass(frozen=True)
class ModelConfig:
    """Size of the transformer; about 3.5 million parameters with the codes of two stages."""

    width: int = 192
    layers: int = 4
    heads: int = 4
    feed_forward: int = 512
    emotions: int = 9


class TokenModel(nn.Module):
    """`LlamaModel` of transformers on sums of embeddings: codes, row, frame, emotion.

    Each place knows its row, so each row has a softmax over its own codes alone. A step of several
    streams predicts their codes apart from each other, from one hidden state.
    """

    def __init__(self, config: ModelConfig, layout: Layout) -> None:
        super().__init__()
        self.config, self.layout = config, layout
        width = config.width
        self.codes = nn.Embedding(layout.size, width)
        self.rows = nn.Embedding(len(layout.sizes) + 1, width)
        self.frames = nn.Embedding(layout.frames + 1, width)
        self.emotions = nn.Embedding(config.emotions, width)
        self.body = LlamaModel(
            LlamaConfig(
                vocab_size=1,
                hidden_size=width,
                intermediate_size=config.feed_forward,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                num_key_value_heads=config.heads,
                max_position_embeddings=layout.steps + 1,
            )
        )
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in layout.sizes)
        for table in (self.codes, self.rows, self.frames, self.emotions):
            nn.init.normal_(table.weight, std=0.02)
        self.register_buffer("_row", layout.row, persistent=False)
        self.register_buffer("_frame", layout.frame, persistent=False)

    def hidden(
        self, numbers: Tensor, emotion: Tensor, start: int = 0, cache: DynamicCache | None = None
    ) -> Tensor:
        """States `[B, L, width]` that predict the places `start .. start + L - 1`.

        Args:
            numbers: int64 `[B, S, L]`, what stands one place earlier.
            emotion: int64 `[B]`.
        """
        span = slice(start, start + numbers.shape[-1])
        x = self.codes(numbers).sum(1)
        x = x + self.rows(self._row[:, span] + 1).sum(0) + self.frames(self._frame[:1, span])[0]
        x = x + self.emotions(emotion)[:, None]
        out = self.body(inputs_embeds=x, past_key_values=cache, use_cache=cache is not None)
        return out.last_hidden_state

    def logits(self, hidden: Tensor, row: int) -> Tensor:
        """Of the codes of a row, `[..., size]`."""
        start = self.layout.starts[row]
        table = self.codes.weight[start : start + self.layout.sizes[row]]
        return self.out[row](hidden) @ table.t()

    def nats(self, numbers: Tensor, emotion: Tensor) -> Tensor:
        """Negative log-likelihood of each row's codes, `[rows]`, in nats, summed over the batch.

        Args:
            numbers: int64 `[B, S, L]`, whole sequences of the layout, without bos.
        """
        bos = torch.full_like(numbers[..., :1], self.layout.bos)
        hidden = self.hidden(torch.cat([bos, numbers[..., :-1]], -1), emotion)
        found = []
        for row, start in enumerate(self.layout.starts):
            stream, place = (int(x) for x in (self._row == row).nonzero()[0])
            places = (self._row[stream] == row).nonzero()[:, 0]
            assert place == int(places[0])
            logits = self.logits(hidden[:, places], row).flatten(0, 1).float()
            target = (numbers[:, stream, places] - start).flatten()
            found.append(nn.functional.cross_entropy(logits, target, reduction="sum"))
        return torch.stack(found)

    @torch.no_grad()
    def generate(
        self,
        emotion: Tensor,
        *,
        prompt: Tensor | None = None,
        prompt_frames: int = 0,
        temperature: float = 0.9,
        top_k: int = 256,
        guidance: float = 1.0,
        unknown: int = 0,
        seed: int = 0,
    ) -> Tensor:
        """Sequences `[B, S, L]` of the layout.

        Args:
            emotion: int64 `[B]`.
            prompt: `[B, S, L]`, whose codes of the first `prompt_frames` frames are kept.
            guidance: weight of (asked - unknown) in the logits; 1 takes those of `emotion` alone.
            unknown: number of the emotion that stands for none.
        """
        generator = torch.Generator().manual_seed(seed)
        batch, layout = len(emotion), self.layout
        guided = guidance != 1.0
        asked = torch.cat([emotion, torch.full_like(emotion, unknown)]) if guided else emotion
        cache = DynamicCache()
        last = torch.full((batch, layout.streams, 1), layout.bos)
        steps = []
        for step in range(layout.steps):
            fed = torch.cat([last, last]) if guided else last
            hidden = self.hidden(fed, asked, step, cache)[:, 0].float()
            now = layout.fixed[:, step].expand(batch, -1).clone()
            for stream in range(layout.streams):
                row = int(layout.row[stream, step])
                if row < 0:
                    continue
                if prompt is not None and int(layout.frame[stream, step]) < prompt_frames:
                    now[:, stream] = prompt[:, stream, step]
                    continue
                logits = self.logits(hidden, row)
                if guided:
                    told, untold = logits.chunk(2)
                    logits = untold + guidance * (told - untold)
                logits = logits / temperature
                if top_k < logits.shape[-1]:
                    least = logits.topk(top_k).values[:, -1:]
                    logits = logits.masked_fill(logits < least, -math.inf)
                drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
                now[:, stream] = layout.starts[row] + drawn
            last = now[..., None]
            steps.append(now)
        return torch.stack(steps, -1)
