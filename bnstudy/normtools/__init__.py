"""What works on anybody's network: swapping norms, folding them away, auditing them, theory.

from bnstudy.normtools.swap import swap_norms
from bnstudy.normtools.fold import fold
from bnstudy.normtools.audit import audit
"""
