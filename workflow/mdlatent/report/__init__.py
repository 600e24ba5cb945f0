"""The report of a study: report.html, one self-contained page that opens offline, and summary.json.

`study` reads what the stages wrote, `figures` and `structures` make it compact, `tables` writes what needs no
JavaScript, `page` puts all into one file.
"""


def main(argv: list[str] | None = None) -> None:
    """Parse, read, write; see `mdlatent.report.command`."""
    from mdlatent.report import command

    command.main(argv)
