"""Networks to explain: a pretrained one for photos, small trained ones for digits and texts."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
