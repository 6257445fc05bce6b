"""What every method stands on: state guard, layer capture, checks, batched evaluation, files."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
