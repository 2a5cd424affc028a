"""The one exception of the importer."""


class ImportRefused(Exception):
    """The import can not be done as asked. The message is for the user: what is wrong, where, and what to change."""
