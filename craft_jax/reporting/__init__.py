"""What people look at: the report as one HTML file, predictions as CSV, and the statistics that these show.

`page` prepares and the .jinja templates draw; `charts` has curves alone. Everything that is shown may be hostile: names
of files and classes, and sentences that a model wrote (`text`).
"""

from craft_jax.reporting import answers, charts, suggestions, words
from craft_jax.reporting.answers import Judged
from craft_jax.reporting.labelled import csv_of_labels, sort_into
from craft_jax.reporting.page import Facts, Model, render, template
from craft_jax.reporting.predictions import PREDICTIONS, write_predictions
from craft_jax.reporting.reading import class_lines, contact_sheet
from craft_jax.reporting.suggestions import Suggestions
from craft_jax.reporting.text import cell, code_in_markdown, in_markdown, path_cell

__all__ = [
    "Facts",
    "Judged",
    "Model",
    "PREDICTIONS",
    "Suggestions",
    "answers",
    "cell",
    "charts",
    "class_lines",
    "code_in_markdown",
    "contact_sheet",
    "csv_of_labels",
    "in_markdown",
    "path_cell",
    "render",
    "sort_into",
    "suggestions",
    "template",
    "words",
    "write_predictions",
]
