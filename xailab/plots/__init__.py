"""Pictures that say what they show: every function returns a figure with its sentence.

Nothing heavy is loaded here: matplotlib comes with the first picture, torch never (a tensor is
turned into an array by asking it). The files are named in the plural: a submodule called
`picture` would hide the function `picture` once it is imported.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
