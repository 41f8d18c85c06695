"""Weir: a gateway that measures and limits the tokens applications buy from language models."""

__version__ = "0.1.0"
