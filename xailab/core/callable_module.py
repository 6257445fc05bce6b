"""Modules that are named as their main function, and can be called like it."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class CallableModule(ModuleType):
    """A module that, called, calls its function of the same name.

    `from xailab.attribution import saliency` is then both: the module (`saliency.smoothgrad`) and
    the method (`saliency(model, x, target)`), whichever was imported first. The signature follows
    through `__wrapped__`, as it does for any decorated function.
    """

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        function: Callable[..., Any] = vars(self)[self.__name__.rpartition(".")[2]]
        return function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.__wrapped__(*args, **kwargs)


def make_callable(name: str) -> None:
    """Let the module that is being imported be called: the last line of its file.

    Its docstring then ends with that of the function.

    Args:
        name: the module's `__name__`; it has a function of its last part.
    """
    module = sys.modules[name]
    module.__class__ = CallableModule
    module.__doc__ = f"{module.__doc__}\n\n{module.__wrapped__.__doc__}"
