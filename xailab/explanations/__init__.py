"""One door above all methods: ask several about one prediction, under the same conditions."""

from xailab.explanations.door import explain, methods
from xailab.explanations.result import Explanation, Explanations

__all__ = ["Explanation", "Explanations", "explain", "methods"]
