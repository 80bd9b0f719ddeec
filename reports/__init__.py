"""Turns finished runs into tables, tests of significance, figures and a Markdown page."""
