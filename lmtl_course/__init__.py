"""The companion package of *Transfer Learning with Language Models*.

One module per chapter, named as the chapter's notebook is. Each imports only chapters before it and the ground floor:
`data` (texts and tasks; those that need no network are made in `embedded`), `metrics` (numbers with intervals),
`plotting` (figures and sources for a page) and `checkpoint` (files that are whole or not there).
Importing this package loads nothing else; `from lmtl_course import recurrent` loads what it names.
"""

__version__ = "0.1.0"

CHAPTERS = (
    *("01_text", "02_bpe", "03_ngram", "04_losses"),
    *("05_recurrent", "06_training"),
    *("07_attention", "08_transformer", "09_pretraining", "10_generation"),
    *("11_transfer", "12_classification", "13_tagging", "14_answering", "16_huggingface"),
)
"""Every chapter that exists, in reading order: `notebooks/<chapter>.ipynb` and the module after the number."""

GROUND_FLOOR = ("embedded", "data", "metrics", "plotting", "checkpoint")
"""Modules that belong to no chapter and that every chapter may use; each may use those before it."""
