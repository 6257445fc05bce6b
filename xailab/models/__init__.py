"""Networks to explain: a pretrained one for photos, small trained ones for digits and texts."""

from importlib import import_module
from typing import Any

_HOMES = {
    "Pretrained": "imagenet",
    "pretrained": "imagenet",
    "normalize": "imagenet",
    "card": "weight_files",
    "DigitCNN": "digits",
    "digit_cnn": "digits",
    "digit_cnn_marked": "digits",
    "digit_cnn_noisy": "digits",
    "digit_cnn_robust": "digits",
    "DigitViT": "transformers",
    "TextTransformer": "transformers",
    "attention_layers": "transformers",
    "digit_vit": "transformers",
    "sms_transformer": "transformers",
    "MiniLM": "sentences",  # not minilm: a module of that name would hide the function
    "minilm": "sentences",
    "movie_head": "sentences",
    "GRUClassifier": "sequences",
    "sms_gru": "sequences",
    "Vocabulary": "texts",
    "ToneCNN": "tones",
    "tone_cnn": "tones",
    "MOON_NOISES": "ensembles",
    "digit_bayes": "ensembles",
    "digit_committee": "ensembles",
    "digit_mlp": "ensembles",
    "mlp": "ensembles",
    "moon_nets": "ensembles",
    "STUDENT_WIDTHS": "students",
    "SmallDigitCNN": "students",
    "digit_students": "students",
    "alexnet": "convnets",
    "conv_output_size": "convnets",
    "resnet": "convnets",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"xailab.models.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'xailab.models' has no attribute {name!r}")
