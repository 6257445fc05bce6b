from . import concepts as concepts
from . import surrogates as surrogates
from .concepts import knowledge_graph as knowledge_graph
from .concepts import write_graphml as write_graphml
from .surrogates import Rule as Rule
from .surrogates import rules_of as rules_of
