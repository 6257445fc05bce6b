"""A recurrent network that reads a text word by word."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xailab.models.texts import TextModel, Vocabulary
from xailab.models.weight_files import vocabulary_file, with_weights


class GRUClassifier(TextModel):
    r"""Word vectors, one gated recurrent unit, and one linear layer on its last state.

    $$r = \sigma(W_r x + U_r h), \quad z = \sigma(W_z x + U_z h)$$
    $$n = \tanh(W_n x + b_n + r \odot (U_n h + c_n)), \qquad h' = (1 - z) \odot n + z \odot h$$

    (each W x with its bias, each U h with its own; x is the vector of the word, h the state, zero
    before the first word). (N, T) ids -> logits (N, n_classes).

    Args:
        vocabulary: the words it knows.
        width: length of a word vector.
        hidden: length of the state.
        n_classes: number of logits.

    Reference: Cho et al. (2014), Learning Phrase Representations using RNN Encoder-Decoder for
        Statistical Machine Translation.
    """

    def __init__(
        self, vocabulary: Vocabulary, *, width: int = 32, hidden: int = 32, n_classes: int = 2
    ) -> None:
        super().__init__(vocabulary, width)
        self.gru = nn.GRU(width, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, n_classes)

    def states(self, embeddings: Tensor) -> Tensor:
        """Return the state before the first word and after each of them.

        (N, T, width) -> (N, T + 1, hidden). `model.fc` of a state is what the network
        would say if the text ended there.
        """
        return F.pad(self.gru(embeddings)[0], (0, 0, 1, 0))

    def forward_embedded(self, embeddings: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the logits; see `TextModel.forward_embedded`.

        Raises:
            ValueError: padding before a word, besides wrong shapes.
        """
        mask = self._mask(embeddings, mask)
        if bool((mask[:, 1:] & ~mask[:, :-1]).any()):
            raise ValueError("padding must come after all words of a text, not before one")
        # Reading goes on through the padding; the state that counts is the one after the last word.
        rows = torch.arange(len(mask), device=mask.device)
        return self.fc(self.states(embeddings)[rows, mask.sum(1)])


def sms_gru() -> GRUClassifier:
    """Return a GRU that tells spam from ham, trained on text messages, in evaluation mode.

    >>> model = sms_gru()
    >>> ids = model.encode(["See you at lunch?", "WIN a free prize! Call 09061701461 now"])
    >>> model(ids).argmax(1)
    tensor([0, 1])
    """
    name = "sms_gru"
    return with_weights(name, GRUClassifier(Vocabulary.read(vocabulary_file(name))))
