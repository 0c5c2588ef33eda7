"""Verifiable rewards: rules that read an answer or a form, without a model.

Each module is one kind of rule with its fixtures beside it. `answer_place` finds where a response
states its answer, `numeral` and `normal` say when two answers are the same, `gold` and `case` read
ground truths and fixtures. `compat` repeats other systems' numbers, `math` decides mathematical
equivalence, `routes` maps data sources to rules.
"""
