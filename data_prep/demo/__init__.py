"""The embedded demo: a drawn world that pre-trains a tiny CLIP, and six small sets unlike that world.

Glyphs come from matplotlib's fonts, scans from scikit-learn, all else from formulas; no download."""
