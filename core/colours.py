"""The colours of all charts, after Okabe and Ito: colour-blind readers can tell them apart.

Blue and orange are slightly changed, so that all but black are readable on white and on dark pages.
"""

RED, BLUE, GREEN, PURPLE = "#d55e00", "#0a84c6", "#009e73", "#cc79a7"
ORANGE, SKY, GREY, BLACK = "#d39200", "#56b4e9", "#8a8f98", "#000000"
SERIES = (RED, BLUE, GREEN, PURPLE, ORANGE, SKY, GREY, "#9467bd")  # in the order of use
CORRECT, INCORRECT, QUIET = "#1a6b3c", "#a11d1d", "#666666"  # text on white


def series_colour(index: int) -> str:
    """The colour of the line or class at ``index``; colours repeat after the last."""
    return SERIES[index % len(SERIES)]
