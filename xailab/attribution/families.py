"""The families of methods that are on the list of all methods."""

from importlib import import_module

_FAMILIES = ("saliency", "paths", "relevance", "cam", "occlusion", "games", "shapley")


def register_all() -> None:
    """Import every family, so that `core.registry.METHODS` lists all methods."""
    for family in _FAMILIES:
        import_module(f"xailab.attribution.{family}")
    import_module("xailab.attribution.adapters").register()
