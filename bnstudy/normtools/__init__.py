"""Tools for anybody's network: swap its norms, fold them away, audit them; and exact theory.

swap.py     `swap_norms(model, "group", channels_per_group=8)`: every norm layer exchanged, in
            place, with a report of what was kept; `undo` puts the old ones back
fold.py     `fold(model.eval(), example)`: batch norms folded into the convolutions before them
audit/      `audit(TheirBatchNorm)`: where an implementation departs from the definition
theory.py   theorems and constants of the papers, computed with the layers of `bnstudy.norms`

The functions are importable from `bnstudy.norms`, too, which loads them when they are asked for.
"""
