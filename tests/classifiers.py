"""Small text classifiers of Hugging Face, random and in double precision, with their tokenizers.

The vocabularies are written down, not trained, so that every piece of a text is known.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

TEXTS = ["A good film, with a bad end!", "unfilmable", "I don't like it :-( 👎"]
_LETTERS = "abcdefghijklmnopqrstuvwxyz'.,:!-("
_WORDS = ["good", "film", "bad", "end", "with", "un", "like", "it", "don"]


@cache
def wordpiece(**options: Any) -> Any:
    """BERT's: lower case, ## inside of words, [CLS] and [SEP] around."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *_WORDS, "##film", "##able", *_LETTERS, *(f"##{one}" for one in _LETTERS)]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    inner.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return _fast(inner, ("[CLS]", 2), ("[SEP]", 3), *special, **options)


@cache
def bytes_(ends: bool = True, **options: Any) -> Any:
    """RoBERTa's, or with no special tokens GPT-2's: every byte is a piece, and a few words are."""
    level = tokenizers.pre_tokenizers.ByteLevel
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    merges = [("f", "i"), ("fi", "l"), ("fil", "m"), ("Ġ", "film"), ("o", "n"), ("u", "n")]
    words = [*special, *sorted(level.alphabet()), *map("".join, merges)]
    inner = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=merges)
    )
    inner.pre_tokenizer = level(add_prefix_space=False)
    if not ends:
        inner.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
        options = {"model_input_names": ["input_ids", "attention_mask"], **options}
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", **options
        )
    return _fast(inner, ("<s>", 0), ("</s>", 2), "<pad>", "<unk>", "<s>", "</s>", "<mask>")


@cache
def unigram(**options: Any) -> Any:
    """ALBERT's: blanks are the first part of the piece behind them."""
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    letters = [*_LETTERS, "A", "I"]
    words = [*(f"▁{one}" for one in _WORDS), *_WORDS, "▁", "▁a▁b"]
    entries = [(word, -2.0) for word in [*special, *words]] + [(one, -4.0) for one in letters]
    inner = tokenizers.Tokenizer(tokenizers.models.Unigram(entries, unk_id=1))
    inner.normalizer = tokenizers.normalizers.NFKC()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(split=False)
    return _fast(inner, ("[CLS]", 2), ("[SEP]", 3), *special, **options)


def _fast(inner: Any, first: Any, last: Any, *special: str, **options: Any) -> Any:
    """Put the two tokens around every text."""
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{first[0]} $A {last[0]}", special_tokens=[first, last]
    )
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), special, strict=True))
    tokens = {f"{name}_token": token for name, token in names.items()}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **tokens, **options)


class Made(NamedTuple):
    """A classifier as it is brought, and its tokenizer."""

    model: nn.Module
    tokenizer: Any


_SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 3}
_SIZES |= {"intermediate_size": 24, "vocab_size": 280}
_GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "vocab_size": 280}
_GPT |= {"num_labels": 3, "bos_token_id": 0, "eos_token_id": 2}
CONFIGS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "BERT": (lambda: transformers.BertConfig(**_SIZES, max_position_embeddings=64), wordpiece),
    "DistilBERT": (
        lambda: transformers.DistilBertConfig(
            dim=16, n_layers=2, n_heads=2, hidden_dim=24, num_labels=3, vocab_size=280
        ),
        wordpiece,
    ),
    "RoBERTa": (lambda: transformers.RobertaConfig(**_SIZES, max_position_embeddings=66), bytes_),
    "ELECTRA": (lambda: transformers.ElectraConfig(**_SIZES, embedding_size=8), wordpiece),
    "ALBERT": (lambda: transformers.AlbertConfig(**_SIZES, embedding_size=8), unigram),
    "DeBERTa-v2": (
        lambda: transformers.DebertaV2Config(
            **_SIZES, relative_attention=True, position_buckets=8, pos_att_type=["p2c", "c2p"],
            position_biased_input=False,
        ),
        unigram,
    ),
    "GPT-2": (
        lambda: transformers.GPT2Config(**_GPT, pad_token_id=1), lambda: bytes_(ends=False)
    ),
    "Llama": (
        lambda: transformers.LlamaConfig(
            **_SIZES, num_key_value_heads=1, pad_token_id=1, bos_token_id=0, eos_token_id=2
        ),
        bytes_,
    ),
    "XLNet": (
        lambda: transformers.XLNetConfig(
            d_model=16, n_layer=2, n_head=2, d_inner=24, num_labels=3, vocab_size=280
        ),
        unigram,
    ),
    "Longformer": (
        lambda: transformers.LongformerConfig(
            **_SIZES, attention_window=4, max_position_embeddings=66
        ),
        bytes_,
    ),
}  # fmt: skip
# More of them, whose answers are what is asked about.
_ROBERTA = {**_SIZES, "max_position_embeddings": 66}
_CAUSAL = {**_SIZES, "num_key_value_heads": 1, "pad_token_id": 1}
MORE: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "MPNet": (lambda: transformers.MPNetConfig(**_ROBERTA), bytes_),
    "XLM-R": (lambda: transformers.XLMRobertaConfig(**_ROBERTA), bytes_),
    "DeBERTa": (
        lambda: transformers.DebertaConfig(
            **_SIZES, relative_attention=True, pos_att_type=["p2c", "c2p"]
        ),
        wordpiece,
    ),
    "ModernBERT": (
        lambda: transformers.ModernBertConfig(
            **_SIZES, pad_token_id=1, bos_token_id=0, eos_token_id=2, cls_token_id=0,
            sep_token_id=2, local_attention=4, global_attn_every_n_layers=2,
        ),
        bytes_,
    ),
    "BigBird": (
        lambda: transformers.BigBirdConfig(**_SIZES, block_size=2, num_random_blocks=1), wordpiece
    ),
    "MobileBERT": (
        lambda: transformers.MobileBertConfig(
            **_SIZES, embedding_size=16, intra_bottleneck_size=16, true_hidden_size=16
        ),
        wordpiece,
    ),
    "ConvBERT": (lambda: transformers.ConvBertConfig(**_SIZES, embedding_size=16), wordpiece),
    "RoFormer": (lambda: transformers.RoFormerConfig(**_SIZES, embedding_size=16), wordpiece),
    "RemBERT": (lambda: transformers.RemBertConfig(**_SIZES, input_embedding_size=8), wordpiece),
    "Qwen2": (lambda: transformers.Qwen2Config(**_CAUSAL), bytes_),
    "Gemma": (lambda: transformers.GemmaConfig(**_CAUSAL, head_dim=8), bytes_),
    "GPT-NeoX": (lambda: transformers.GPTNeoXConfig(**_SIZES, pad_token_id=1), bytes_),
    "OPT": (
        lambda: transformers.OPTConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=24, num_labels=3,
            vocab_size=280, word_embed_proj_dim=16,
        ),
        bytes_,
    ),
    "Funnel": (
        lambda: transformers.FunnelConfig(
            vocab_size=280, block_sizes=[1, 1], d_model=16, n_head=2, d_head=8, d_inner=24,
            num_labels=3,
        ),
        wordpiece,
    ),
    "BLOOM": (
        lambda: transformers.BloomConfig(
            hidden_size=16, n_layer=2, n_head=2, vocab_size=280, num_labels=3, pad_token_id=1
        ),
        bytes_,
    ),
}  # fmt: skip


def made(name: str, *, seed: int = 0, **changes: Any) -> Made:
    """Make one, with weights large enough for its answers to differ, in training mode."""
    config, tokenizer = (make() for make in {**CONFIGS, **MORE}[name])
    for key, value in changes.items():
        setattr(config, key, value)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForSequenceClassification.from_config(config)
        for weight in model.parameters():
            nn.init.normal_(weight, std=0.3)
        for module in model.modules():
            if "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None:
                nn.init.uniform_(module.weight, 0.5, 1.5)
    return Made(model.double().train(), tokenizer)


# Words that decide a class, each cut into two pieces, and letters that mean nothing.
_AGAINST, _FOR, _NOTHING = ["awful", "poor"], ["superb", "great"], [*"abcdefghijklmnopqrst"]


def deciding(name: str) -> Made:
    """Make one for `deciding_texts`, untrained: classes against, for, neither."""
    halves = ["aw", "##ful", "po", "##or", "super", "##b", "gre", "##at"]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*special, *_NOTHING, *halves]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_labels": 3, "pad_token_id": 0}
    changes = sizes if name == "BERT" else {"n_embd": 32, "num_labels": 3, "pad_token_id": 0}
    config = CONFIGS[name][0]()
    for key, value in changes.items():
        setattr(config, key, value)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForSequenceClassification.from_config(config)
    return Made(model, _fast(inner, ("[CLS]", 2), ("[SEP]", 3), *special))


def deciding_texts(n: int, seed: int) -> tuple[list[str], torch.Tensor, torch.Tensor]:
    """Return n texts, their classes, and where the deciding word stands, counting [CLS]."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    texts, classes, places = [], [], []
    for _ in range(n):
        words = [_NOTHING[draw(0, len(_NOTHING))] for _ in range(draw(4, 10))]
        label, place = draw(0, 3), draw(0, len(words))
        if label < 2:
            words[place] = (_AGAINST, _FOR)[label][draw(0, 2)]
        texts.append(" ".join(words))
        classes.append(label)
        places.append(place + 1)
    return texts, torch.tensor(classes), torch.tensor(places)
