"""Data sets: the registry, fetching, loaders, and data whose explanation is known."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
