"""Pictures that say what they show: every function returns a figure with its sentence.

Nothing heavy is loaded here: matplotlib comes with the first picture, torch never (a tensor is
turned into an array by asking it). The files are named in the plural: a submodule called
`picture` would hide the function `picture` once it is imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xailab.plots.boundaries import boundary, raster
    from xailab.plots.charts import bars, curve, scoreboard
    from xailab.plots.graphs import graph, network
    from xailab.plots.histograms import ridge
    from xailab.plots.interval import intervals
    from xailab.plots.maps import compare, heatmap, images
    from xailab.plots.matrices import cells, confusion
    from xailab.plots.pictures import Picture, picture
    from xailab.plots.shap import arrivals, beeswarm, force, tokens, waterfall
    from xailab.plots.sounds import spectrograms
    from xailab.plots.surface import describe_surfaces, surface_raster, surfaces
    from xailab.plots.tables import Table, table
    from xailab.plots.timelines import timeline
    from xailab.plots.unit_cards import evidence, patch, tiles, unit_card
    from xailab.plots.words import describe, describe_bars, describe_curves

_HOMES = {
    "Picture": "pictures",
    "Table": "tables",
    "arrivals": "shap",
    "bars": "charts",
    "beeswarm": "shap",
    "boundary": "boundaries",
    "cells": "matrices",
    "compare": "maps",
    "confusion": "matrices",
    "curve": "charts",
    "describe": "words",
    "describe_bars": "words",
    "describe_curves": "words",
    "describe_surfaces": "surface",
    "evidence": "unit_cards",
    "force": "shap",
    "graph": "graphs",
    "heatmap": "maps",
    "images": "maps",
    "intervals": "interval",
    "network": "graphs",
    "patch": "unit_cards",
    "picture": "pictures",
    "raster": "boundaries",
    "ridge": "histograms",
    "scoreboard": "charts",
    "spectrograms": "sounds",
    "surface_raster": "surface",
    "surfaces": "surface",
    "table": "tables",
    "tiles": "unit_cards",
    "timeline": "timelines",
    "tokens": "shap",
    "waterfall": "shap",
    "unit_card": "unit_cards",
}
__all__ = [
    "Picture",
    "Table",
    "arrivals",
    "bars",
    "beeswarm",
    "boundary",
    "cells",
    "compare",
    "confusion",
    "curve",
    "describe",
    "describe_bars",
    "describe_curves",
    "describe_surfaces",
    "evidence",
    "force",
    "graph",
    "heatmap",
    "images",
    "intervals",
    "network",
    "patch",
    "picture",
    "raster",
    "ridge",
    "scoreboard",
    "spectrograms",
    "surface_raster",
    "surfaces",
    "table",
    "tiles",
    "timeline",
    "tokens",
    "unit_card",
    "waterfall",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'xailab.plots' has no attribute {name!r}")
    return getattr(import_module(f"xailab.plots.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
