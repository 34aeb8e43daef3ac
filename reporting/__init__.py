"""Pages to show: no script, no network, light and dark, on screen and on paper."""
