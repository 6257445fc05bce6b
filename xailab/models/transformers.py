"""A small transformer, written out: attention, blocks, and two networks made of them."""

import math

import torch
from torch import Tensor, nn

from xailab.models.texts import TextModel, Vocabulary
from xailab.models.weight_files import vocabulary_file, with_weights


class MaskedSoftmax(nn.Module):
    """Scores (N, H, T, T) -> weights over the last axis, zero where there is nothing to look at.

    A module of its own, so that `core.capture` can take the attention weights.
    """

    def forward(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Return weights whose rows sum to 1; mask (N, T) is True where there is something."""
        return scores.masked_fill(~mask[:, None, None, :], -torch.inf).softmax(-1)


class Attention(nn.Module):
    r"""Every position asks all positions, in several heads side by side.

    $$A = \mathrm{softmax}(Q K^\top / \sqrt{d}), \qquad \text{head} = A V$$

    Q, K and V are linear maps of the input, cut into heads of length d = width / heads; a last
    linear map mixes the heads. The weights A are the output of the submodule `softmax`, shape
    (N, heads, T, T): row i is what position i looks at.

    Args:
        width: length of a vector.
        heads: how many heads share it.

    Raises:
        ValueError: the width cannot be shared by so many heads.

    Reference: Vaswani et al. (2017), Attention Is All You Need.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} cannot be shared by {heads} heads")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.softmax = MaskedSoftmax()
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (N, T, width) of the same; mask (N, T) is True where there is something."""
        q, k, v = (self._cut(part(x)) for part in (self.query, self.key, self.value))
        weights = self.softmax(q @ k.mT / math.sqrt(q.shape[-1]), mask)  # (N, heads, T, T)
        return self.output((weights @ v).transpose(1, 2).flatten(2))

    def _cut(self, x: Tensor) -> Tensor:
        """Cut vectors into heads: (N, T, width) -> (N, heads, T, width / heads)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Look around, then think: two residual steps, each on normalized vectors (pre-norm).

    x + attention(norm(x)), then the same with a small network for the attention.

    Reference: Xiong et al. (2020), On Layer Normalization in the Transformer Architecture.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (N, T, width) of the same."""
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """Blocks one after the other, over a class token and up to `length` vectors with positions.

    The class token is a learned vector put before the others. It stands for no word or patch, so
    that what it has gathered at the end is an answer about the whole.
    """

    def __init__(self, width: int, *, depth: int, heads: int, length: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + length, width))
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the class token's vector after all blocks: (N, T, width) -> (N, width)."""
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        x = x + self.positions[:, : x.shape[1]]
        mask = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x[:, 0])


class TextTransformer(TextModel):
    """A transformer on words: (N, T) ids -> logits (N, n_classes).

    Args:
        vocabulary: the words it knows.
        width: length of a word vector.
        depth: number of blocks.
        heads: heads of each block.
        max_length: how many words it has positions for.
        n_classes: number of logits.

    Reference: Devlin et al. (2019), BERT: Pre-training of Deep Bidirectional Transformers for
        Language Understanding (the class token on text).
    """

    leading = 1  # the class token

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        width: int = 32,
        depth: int = 2,
        heads: int = 4,
        max_length: int = 64,
        n_classes: int = 2,
    ) -> None:
        super().__init__(vocabulary, width, max_length)
        self.encoder = Encoder(width, depth=depth, heads=heads, length=max_length)
        self.fc = nn.Linear(width, n_classes)

    def forward_embedded(self, embeddings: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits; see `TextModel.forward_embedded`. The mask may also hide words."""
        return self.fc(self.encoder(embeddings, self._mask(embeddings, mask)))


class DigitViT(nn.Module):
    """A transformer on 49 patches of 4 x 4 pixels: (N, 1, 28, 28) in [0, 1] -> logits (N, 10).

    Position 0 of its attention is the class token, position 1 + 7 i + j the patch in row i and
    column j.

    Reference: Dosovitskiy et al. (2021), An Image is Worth 16x16 Words.
    """

    def __init__(self, *, width: int = 48, depth: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, stride=4)
        self.encoder = Encoder(width, depth=depth, heads=heads, length=49)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, (N, 10).

        Raises:
            ValueError: another shape than (N, 1, 28, 28).
        """
        if x.shape[1:] != (1, 28, 28):
            raise ValueError(f"x must be (N, 1, 28, 28), got shape {tuple(x.shape)}")
        x = self.patches(x).flatten(2).mT  # (N, 49, width)
        return self.fc(self.encoder(x, x.new_ones(x.shape[:2], dtype=torch.bool)))


def attention_layers(model: nn.Module) -> list[str]:
    """Return the names of the layers whose outputs are attention weights, for `core.capture`.

    >>> attention_layers(DigitViT(depth=2))
    ['encoder.blocks.0.attention.softmax', 'encoder.blocks.1.attention.softmax']
    """
    return [name for name, part in model.named_modules() if isinstance(part, MaskedSoftmax)]


def sms_transformer() -> TextTransformer:
    """Return a transformer that tells spam from ham, in evaluation mode.

    >>> model = sms_transformer()
    >>> ids = model.encode(["See you at lunch?", "WIN a free prize! Call 09061701461 now"])
    >>> model(ids).argmax(1)
    tensor([0, 1])
    """
    name = "sms_transformer"
    return with_weights(name, TextTransformer(Vocabulary.read(vocabulary_file(name))))


def digit_vit() -> DigitViT:
    """Return a vision transformer trained on 4,000 MNIST digits, in evaluation mode."""
    return with_weights("digit_vit", DigitViT())
