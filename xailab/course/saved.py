"""What JupyterLab saves: pictures in place of explorers, so that the file can be opened anywhere.

An explorer lives in a kernel. A saved notebook that only names it shows "Error displaying widget:
model not found" once that kernel is gone; the picture that travels in the same output shows
everywhere. `xailab lab` loads this module as an extension of the server
(`jupyter/jupyter_server_config.json`); what stands on the page of an open notebook is not touched.
"""

from typing import Any

VIEW = "application/vnd.jupyter.widget-view+json"
_STANDS_IN = {"image/png", "image/svg+xml", "text/html", "text/markdown"}


def without_views(outputs: list[Any]) -> list[Any]:
    """Return the outputs of one cell with pictures, or nothing, in place of widgets.

    >>> without_views([{"data": {VIEW: {"model_id": "1f"}, "image/png": "iVBOR"}}])
    [{'data': {'image/png': 'iVBOR'}}]
    >>> without_views([{"data": {VIEW: {"model_id": "1f"}, "text/plain": "IntSlider(value=0)"}}])
    []
    """
    kept = []
    for output in outputs:
        data = output.get("data", {})
        if VIEW in data and not _STANDS_IN & set(data):
            continue
        data.pop(VIEW, None)
        kept.append(output)
    return kept


def clean_before_saving(model: dict[str, Any], **_: Any) -> None:
    """Take the widgets out of a notebook that the server is about to write; a Jupyter save hook."""
    if model.get("type") != "notebook":
        return
    for cell in model["content"]["cells"]:
        if "outputs" in cell:
            cell["outputs"] = without_views(cell["outputs"])


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(server: Any) -> None:
    server.contents_manager.register_pre_save_hook(clean_before_saving)
