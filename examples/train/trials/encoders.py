"""Text encoders by name: `input_ids`, `attention_mask` [batch, sequence] -> embeddings [batch, 128] of unit length."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from text_model import HIDDEN, WIDTH, Encoder
from training import unit


class Bag(nn.Module):
    """The mean of a text's words, and one layer on top."""

    def __init__(self, vocabulary: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.token, self.norm = nn.Embedding(vocabulary, WIDTH), nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        nn.init.normal_(self.token.weight, std=0.05)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        mask = attention_mask.to(torch.float32)[:, :, None]
        tokens = F.dropout(self.token(input_ids), self.dropout, self.training)
        mean = self.norm((tokens * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0))
        return unit(mean + F.dropout(self.down(F.gelu(self.up(mean))), self.dropout, self.training))


ENCODERS: dict[str, Callable[..., nn.Module]] = {"transformer": Encoder, "bag": Bag}
