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
    from xailab.plots.maps import compare, heatmap, images
    from xailab.plots.pictures import Picture, picture
    from xailab.plots.tables import Table, table
    from xailab.plots.timelines import timeline
    from xailab.plots.words import describe, describe_bars, describe_curves

_HOMES = {
    "Picture": "pictures",
    "Table": "tables",
    "bars": "charts",
    "boundary": "boundaries",
    "compare": "maps",
    "curve": "charts",
    "describe": "words",
    "describe_bars": "words",
    "describe_curves": "words",
    "graph": "graphs",
    "heatmap": "maps",
    "images": "maps",
    "network": "graphs",
    "picture": "pictures",
    "raster": "boundaries",
    "scoreboard": "charts",
    "table": "tables",
    "timeline": "timelines",
}
__all__ = [
    "Picture",
    "Table",
    "bars",
    "boundary",
    "compare",
    "curve",
    "describe",
    "describe_bars",
    "describe_curves",
    "graph",
    "heatmap",
    "images",
    "network",
    "picture",
    "raster",
    "scoreboard",
    "table",
    "timeline",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'xailab.plots' has no attribute {name!r}")
    return getattr(import_module(f"xailab.plots.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
