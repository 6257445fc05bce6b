"""Explorers with sliders, each with a picture that stands in where nothing can slide."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
