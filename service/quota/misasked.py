"""Misasked: what cannot be done as it was asked."""


class Misasked(Exception):
    """The message says what was expected; `unknown` says that it is well asked, but not known here."""

    def __init__(self, message: str, *, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown
