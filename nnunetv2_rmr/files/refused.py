"""The one exception of all checks of files, folders and options."""

from collections.abc import Mapping, Sequence


class BadCaseError(ValueError):
    """Input can not be used. The message is for the user: it names the file, says what is wrong and what to do."""


def in_words(text: str, words: Mapping[str, str]) -> str:
    """`text` with the words of every file that it names; for files that the user has never seen."""
    for file, told in words.items():
        text = text.replace(file, told)
    return text


def some_of(names: Sequence[str], number: int = 5, separator: str = ", ") -> str:
    """The first of many names, for a message; " ..." says that there are more."""
    return separator.join(names[:number]) + " ..." * (len(names) > number)
