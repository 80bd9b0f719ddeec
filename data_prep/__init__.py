"""Prepares the data of every experiment: catalogues, archives, splits and the embedded demo."""
