"""A transformer that has read a lot of English: word pieces, heads, and vectors of sentences."""

import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors.torch import load
from torch import Tensor, nn

from xailab.core.batching import batched
from xailab.core.state import frozen
from xailab.data import read_members
from xailab.models.texts import check_texts
from xailab.models.weight_files import card, with_weights

if TYPE_CHECKING:  # transformers takes seconds to import, and nothing else needs it
    from tokenizers import Tokenizer
    from transformers import BertModel

_LONGEST = 128  # word pieces of a text that are read, as its own tokenizer has it


class MiniLM(NamedTuple):
    """MiniLM with its tokenizer.

    Attributes:
        model: the network, in evaluation mode, its attention weights ready to be asked for:
            `model(**encode(texts), output_attentions=True)`, or `attention_maps(model, ...)`.
        tokenizer: cuts a text into word pieces; of the library tokenizers.
        card: the model card, Markdown.
    """

    model: "BertModel"
    tokenizer: "Tokenizer"
    card: str

    def tokens(self, text: str) -> list[str]:
        """Return the pieces of one text as the network reads them, [CLS] and [SEP] around them.

        A piece that goes on with a word begins with ##. All is in lower case; pieces after the
        first 128 are cut off.

        Raises:
            TypeError: not a string.
        """
        if not isinstance(text, str):
            raise TypeError(f"text must be one string, got {type(text).__name__}")
        return self.tokenizer.encode(text).tokens

    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return what the network takes: `input_ids` and `attention_mask`, (N, T) int64 each.

        Shorter texts are padded at the end; there the mask is 0.

        Raises:
            TypeError: a single string, or anything else that is no sequence of strings.
            ValueError: no text at all.
        """
        rows = self.tokenizer.encode_batch(list(check_texts(texts)))
        parts = {"input_ids": "ids", "attention_mask": "attention_mask"}
        return {
            name: torch.tensor([getattr(row, part) for row in rows]) for name, part in parts.items()
        }

    def features(self, texts: Sequence[str], *, layer: int = 6, batch_size: int = 32) -> Tensor:
        r"""Return a vector for each text, the mean over its pieces after a layer, (N, 384) float32.

        $$\bar h = \frac{\sum_j m_j h_j}{\sum_j m_j}, \qquad m = \text{attention mask}$$

        Texts are sorted by length first, so that little is computed on padding.

        Args:
            texts: N texts.
            layer: 1 to 6, after how many of the layers; 0 for the vectors that go in.
            batch_size: how many are read at once.

        Raises:
            TypeError, ValueError: as for `encode`; a layer that is not there; a `batch_size` that
                is no count.

        Reference: Reimers, Gurevych (2019), Sentence-BERT: Sentence Embeddings using Siamese
            BERT-Networks.
        Elsewhere: sentence-transformers `SentenceTransformer.encode`, which scales each vector to
            length 1 for this model.
        """
        if layer not in range(1 + len(self.model.encoder.layer)):
            raise ValueError(f"layer must be 0 to {len(self.model.encoder.layer)}, got {layer!r}")
        order = sorted(range(len(check_texts(texts))), key=lambda i: len(texts[i]))
        ordered = [texts[i] for i in order]
        with frozen(self.model), torch.no_grad():
            means = batched(partial(self._means, layer=layer), ordered, batch_size=batch_size)
        return means[torch.tensor(order).argsort()]

    def _means(self, texts: Sequence[str], layer: int) -> Tensor:
        inputs = self.encode(texts)
        vectors = self.model(**inputs, output_hidden_states=True).hidden_states[layer]
        words = inputs["attention_mask"][..., None].to(vectors.dtype)
        return (vectors * words).sum(1) / words.sum(1)


class SentimentHead(nn.Module):
    """Two logits, not positive and positive, of MiniLM's features: (N, 384) -> (N, 2).

    Attributes:
        layer: of which layer of MiniLM it takes the features.
    """

    layer = 5

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(384, 2)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits; the two are opposite, so one of them says it all."""
        return self.fc(features)


def movie_head() -> SentimentHead:
    """Return a linear head that tells from MiniLM's features whether a sentence is positive.

    >>> net, head = minilm(), movie_head()
    >>> features = net.features(["A delight from start to end.", "A mess."], layer=head.layer)
    >>> head(features).argmax(1)
    tensor([1, 0])
    """
    return with_weights("movie_head", SentimentHead())


def minilm() -> MiniLM:
    """Load MiniLM from the data cache; nothing is unpickled, and no host is asked.

    A BERT of 6 layers with 12 heads each and vectors of length 384, trained to give sentences of
    similar meaning similar vectors (all-MiniLM-L6-v2).

    Returns:
        A new model object each time, with tokenizer and card.

    Raises:
        ImportError: the library transformers is not installed (`pip install xailab[lab]`).
        What `xailab.data.fetch` raises, if the weights are not in the cache yet.

    Reference: Wang, Wei, Dong, Bao, Yang, Zhou (2020), MiniLM: Deep Self-Attention Distillation
        for Task-Agnostic Compression of Pre-Trained Transformers.
    Elsewhere: `SentenceTransformer("all-MiniLM-L6-v2")`.

    >>> net = minilm()
    >>> net.tokens("Tepid biopic.")
    ['[CLS]', 'te', '##pid', 'bio', '##pic', '.', '[SEP]']
    >>> net.features(["a good film", "a fine movie"]).shape
    torch.Size([2, 384])
    """
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel

    files = {path.rpartition("/")[2]: file for path, file in read_members("minilm").items()}
    # "eager": the fast ways to compute attention never have its weights in memory.
    settings = json.loads(files["config.json"]) | {"attn_implementation": "eager"}
    model = BertModel(BertConfig(**settings), add_pooling_layer=False)
    weights = load(files["model.safetensors"])
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
    tokenizer.enable_padding(pad_id=settings["pad_token_id"], pad_token="[PAD]")
    tokenizer.enable_truncation(_LONGEST)
    return MiniLM(model.eval(), tokenizer, card("minilm"))
