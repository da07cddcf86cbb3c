"""Imported before torch: OpenMP threads that have nothing to do sleep instead of spinning.

On cores shared with other programs spinning burnt three to six times the processor time of a step and made it five times slower.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
