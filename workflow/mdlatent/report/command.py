"""Write the report of a study: report.html, one self-contained page that opens offline, and summary.json.

Both follow from the files of the study, the configuration and the versions alone: same results, same bytes, but for
the timings, which come from the benchmark files.
"""

import json
import logging
from pathlib import Path
from typing import Any

from mdlatent import config, files, sources, stage
from mdlatent.errors import ConfigError

log = logging.getLogger("mdlatent")


def main(argv: list[str] | None = None) -> None:
    """Parse, read, write."""
    parser = stage.parser("report", __doc__)
    parser.add_argument("--study-dir", type=Path, required=True, help="folder of the study, results/<study>")
    parser.add_argument("--models", help='JSON: [{"name", "seeds"}, …]; default, all of the configuration')
    parser.add_argument("--output", type=Path, required=True, help="report.html")
    parser.add_argument("--summary", type=Path, required=True, help="summary.json")
    stage.add_options(parser)
    args = parser.parse_args(argv)
    stage.start_logging(args.log)
    stage.limit_threads(1)
    # The page shows the whole configuration, so the whole of it is asked for.
    options = public(stage.read_options(args.options, *config.schema()["properties"]))
    wanted = runs_wanted(args.models, options)

    from mdlatent.report import page, study, summary

    with study.read(args.study_dir, wanted, bool(options["conformers"])) as found:
        about = summary.describe(options, found.records + (found.conformers or {}).get("records", []))
        text = page.build(found, options, about, links_from=args.output.parent)
    with files.write_beside(args.output) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    files.write_json(args.summary, about)
    log.info("%s: %.1f MB, %d models and seeds", args.output, len(text.encode()) / 1e6, len(wanted))


def runs_wanted(text: str | None, options: dict[str, Any]) -> list[tuple[str, int]]:
    """(model, seed) of every run to report, in order. Raises ConfigError if `text` is not as described in main."""
    from mdlatent.model_names import model_name

    if text is None:
        return [(model_name(model), seed) for model in options["models"] for seed in options["seeds"]]
    try:
        return [(str(model["name"]), int(seed)) for model in json.loads(text) for seed in model["seeds"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f'--models: got {text[:80]!r}, expected [{{"name": "…", "seeds": [0]}}, …]') from error


def public(values: Any) -> Any:
    """The same configuration without user names and passwords in its addresses: the page is made to be shared."""
    if isinstance(values, dict):
        return {key: public(value) for key, value in values.items()}
    if isinstance(values, list):
        return [public(value) for value in values]
    return sources.without_secrets(values) if isinstance(values, str) and "://" in values else values
