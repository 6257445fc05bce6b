"""What breaks a model that works: weak spots in the data, broken memory, spoiled inputs, drift.

Lesson `faults` teaches these files. Four questions: on which rows is the model wrong (`slices`, in
error_slices.py)? Which bit of which layer may not fail (`flip_bits`, `stuck_at`, `damage_table`, in
bit_faults.py)? How much noise and blur does it bear (`corrupt`, in corruptions.py)? And who tells
us when what comes in is no longer what it was built for (`Monitor`, in monitor.py)?
"""

from xailab.trust.bit_faults import Damage, damage_table, flip_bits, stuck_at
from xailab.trust.bits import bit_names, flipped
from xailab.trust.corruptions import CORRUPTIONS, corrupt
from xailab.trust.error_slices import slices
from xailab.trust.monitor import Monitor

__all__ = [
    "CORRUPTIONS",
    "Damage",
    "Monitor",
    "bit_names",
    "corrupt",
    "damage_table",
    "flip_bits",
    "flipped",
    "slices",
    "stuck_at",
]
