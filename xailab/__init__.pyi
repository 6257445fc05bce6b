from . import attribution as attribution
from . import behavior as behavior
from . import core as core
from . import course as course
from . import data as data
from . import evaluate as evaluate
from . import foundations as foundations
from . import models as models
from . import plots as plots
from . import simplify as simplify
from . import trust as trust
from . import widgets as widgets
from .explanations import explain as explain
from .explanations import methods as methods

__version__: str
