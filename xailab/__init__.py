"""xailab: explain neural networks, and check the explanations.

`import xailab` costs almost nothing: torch and its kin are loaded when a name is first used.
"""

import lazy_loader as lazy

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
