"""Studies: what the table of a finished grid shows. No training, no torch.

A study is a grid in configs/study/NAME.yaml and a module of the same name with three functions:

    shape(table) -> (rows, columns)     of panels
    figure(table, axes) -> None         draws, legends too; the axes are an array of that shape
    claims(table) -> list[stats.Claim]  with preconditions, exactly one of them primary

and, where others have published numbers, `PUBLISHED`, a `kit.Published`. `planned.check` asks
before training whether a study can judge a grid; `results_of` gives its verdicts afterwards.
"""

from bnstudy.studies.results import lines, module, results_of

__all__ = ["lines", "module", "results_of"]
