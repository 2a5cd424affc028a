"""The one exception of all checks of files, folders and options."""


class BadCaseError(ValueError):
    """Input can not be used. The message is for the user: it names the file, says what is wrong and what to do."""
