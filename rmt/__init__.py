"""Regularized Mask Tuning and its rivals: turns a few-shot sample into a run (record, predictions, curve, adapter)."""
