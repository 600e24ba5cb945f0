"""A study's configuration: read, checked against the schema, defaults filled in.

The schema (`workflow/schemas/config.schema.yaml`) is the one place that says what each key means and may be. Every
mistake is reported at once, each with its file and line, the value found and what was expected.
"""

import contextlib
import copy
import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

from mdlatent.errors import ConfigError

SCHEMA = Path(__file__).parent.parent / "schemas" / "config.schema.yaml"

KeyPath = tuple[str | int, ...]


@cache
def schema() -> dict[str, Any]:
    """The schema of a whole configuration."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where it is there, takes a tenth of the time
    return yaml.load(SCHEMA.read_text(encoding="utf-8"), loader)


def load(path: Path) -> dict[str, Any]:
    """Read and resolve a study's configuration file. Raises ConfigError with every mistake found."""
    return resolve(read(path), [path])


def read(path: Path) -> dict[str, Any]:
    """The raw content of a configuration file. Raises ConfigError if it is missing or not a YAML mapping."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such configuration file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected `key: value` lines, got {_kind(values)}")
    return values


def resolve(values: dict[str, Any], files: Sequence[Path] = ()) -> dict[str, Any]:
    """A complete configuration: validated, table of simulations read and expanded, defaults and model names filled in.

    `files` are those the values came from; they serve only to name the line of a mistake.
    Raises ConfigError with every mistake found.
    """
    from mdlatent import table
    from mdlatent.model_names import model_name

    lines = Lines(files)
    values = copy.deepcopy(values)
    rows_from = values.get("simulations")
    if isinstance(rows_from, str):
        values["simulations"] = table.read(Path(rows_from))
        lines.tables[("simulations",)] = rows_from
    values = _with_exponents(values, schema())
    _raise(_mistakes(values, schema(), lines))
    explicit = set(values.get("train", {}))
    values = _with_defaults(values, schema())
    values["simulations"] = table.expand(values["simulations"], lambda: lines.where(("simulations",)))
    for row in values["simulations"]:
        if "simulate" in row:
            row.setdefault("time_step_ps", values["simulate"]["save_interval_ps"])
            row.setdefault("temperature_k", values["simulate"]["temperature_k"])
    for number, model in enumerate(values["models"]):
        model["name"] = model_name(model)
        model["train"] = _with_exponents(model["train"], schema()["properties"]["train"])
        _raise(_mistakes(model["train"], schema()["properties"]["train"], lines, ("models", number, "train")))
        _fill_train(model, explicit)
        _fill_options(model, lines, ("models", number, "options"))
    _raise(_cross_checks(values, lines))
    if values["conformers"] and values["conformers"]["seeds"] is None:
        values["conformers"]["seeds"] = list(values["seeds"])
    return values


def validate_part(values: dict[str, Any]) -> dict[str, Any]:
    """Some sections of a configuration, validated on their own and with their defaults filled in."""
    part = {**schema(), "required": []}
    values = _with_exponents(values, part)
    _raise(_mistakes(values, part, Lines(())))
    known = {name: rule for name, rule in schema()["properties"].items() if name in values}
    explicit = set(values.get("train", {}))
    values = _with_defaults(copy.deepcopy(values), {**part, "properties": known})
    for number, model in enumerate(values.get("models", [])):
        _fill_train(model, explicit)
        _fill_options(model, Lines(()), ("models", number, "options"))
    return values


def family_options(family: str, options: dict[str, Any]) -> dict[str, Any]:
    """The settings of a model family, validated and with their defaults filled in. Raises ConfigError."""
    model: dict[str, Any] = {"family": family, "options": copy.deepcopy(options)}
    _fill_options(model, Lines(()), ("options",))
    return model["options"]


def _fill_options(model: dict[str, Any], lines: "Lines", place: KeyPath) -> None:
    """Validate a model's `options` against its family's own schema, and fill in the defaults, in place."""
    rules = schema()["$defs"][model["family"]]
    options = _with_exponents(model["options"], rules)
    _raise(_mistakes(options, rules, lines, place))
    model["options"] = _with_defaults(options, rules)


def _fill_train(model: dict[str, Any], explicit: set[str]) -> None:
    """Put the family's own defaults (`x-train` in the schema) under a model's `train`, in place.

    They stand above the defaults of the section `train` and below what the user wrote: in the model's own `train`, or
    in the section, whose keys are `explicit`.
    """
    own = schema()["$defs"][model["family"]].get("x-train", {})
    kept = {key: copy.deepcopy(value) for key, value in own.items() if key not in explicit}
    model["train"] = {**kept, **model["train"]}


def train_settings(values: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Section `train` with the keys of one model's own `train` on top; both as `resolve` or `validate_part` gave them,
    so that the family's defaults are in the latter."""
    return {**values["train"], **model.get("train", {})}


class Lines:
    """Where each key stands: file and line, for error messages."""

    def __init__(self, files: Iterable[Path]):
        self.tables: dict[KeyPath, str] = {}
        self.files = list(files)

    @cached_property
    def roots(self) -> list[tuple[Path, yaml.Node | None]]:
        """The files' content with its lines; read only when there is a mistake, for it takes long."""
        found = []
        for file in self.files:
            with contextlib.suppress(OSError, yaml.YAMLError):
                found.append((file, yaml.compose(Path(file).read_text(encoding="utf-8"))))
        return found

    def where(self, path: KeyPath) -> str:
        """`config.yaml, line 12: ` for the key at `path` (the nearest parent that can be found), or an empty text."""
        for prefix, table_file in self.tables.items():
            if path[: len(prefix)] == prefix and len(path) > len(prefix):
                return f"{table_file}, line {int(path[len(prefix)]) + 2}: "
        for file, root in reversed(self.roots):
            if (line := _line(root, path)) is not None:
                return f"{file}, line {line}: "
        return ""


def _line(node: yaml.Node | None, path: KeyPath) -> int | None:
    """Line (from 1) of the key at `path`, or of its nearest parent below the root."""
    line = None
    for key in path:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(key)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known name most like `name`, else the list of what is known."""
    known = list(known)
    match = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
    return f"; did you mean {match[0]!r}?" if match else f"; known are: {', '.join(known) or 'none'}"


def _mistakes(values: Any, rules: dict[str, Any], lines: Lines, root: KeyPath = ()) -> list[str]:
    """Every violation of the schema as a sentence with its place."""
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(rules)
    found = []
    for error in sorted(validator.iter_errors(values), key=lambda e: [str(part) for part in e.absolute_path]):
        path = root + tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            known = error.schema.get("properties", {})
            for key in sorted(set(error.instance) - set(known), key=str):
                inside = f" in {_dotted(path)!r}" if path else ""
                found.append(f"{lines.where((*path, key))}unknown key {key!r}{inside}{nearest(key, known)}")
        elif error.validator == "required":
            missing = next(key for key in error.validator_value if key not in error.instance)
            inside = f"in {_dotted(path)!r} " if path else ""
            found.append(f"{lines.where(path)}{inside}the key {missing!r} is missing")
        else:
            found.append(
                f"{lines.where(path)}{_dotted(path)}: got {_show(error.instance)}, expected {_expected(error)}"
            )
    return found


def _expected(error: Any) -> str:
    rule, value = error.validator, error.validator_value
    words = {
        "integer": "a whole number", "number": "a number", "string": "text", "boolean": "true or false",
        "array": "a list", "object": "keys and values", "null": "null",
    }  # fmt: skip
    if rule == "type":
        return " or ".join(words[kind] for kind in ([value] if isinstance(value, str) else value))
    if rule == "enum":
        return "one of " + ", ".join(map(str, value)) + _hint(error.instance, value)
    bounds = {
        "minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most", "exclusiveMaximum": "less than",
        "minItems": "at least this many entries:", "maxItems": "at most this many entries:",
    }  # fmt: skip
    if rule in bounds:
        return f"{bounds[rule]} {value}"
    if rule == "uniqueItems":
        return "each entry only once"
    if rule == "pattern" and value == "^auto$":
        return "a whole number or `auto`"
    if rule == "pattern":
        return "letters, digits, '.', '_' and '-', beginning with a letter or digit (it becomes part of file names)"
    return error.message


def _hint(value: Any, known: list[Any]) -> str:
    match = difflib.get_close_matches(str(value), [str(name) for name in known], n=1, cutoff=0.6)
    return f" (did you mean {match[0]!r}?)" if match else ""


def _cross_checks(values: dict[str, Any], lines: Lines) -> list[str]:
    """What no schema can say: keys that must agree with each other."""
    found = [*_split_mistakes(values), *_name_mistakes(values), *_conformer_mistakes(values)]
    return [lines.where(path) + sentence for path, sentence in found]


def _split_mistakes(values: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    split = values["split"]
    names = [row["name"] for row in values["simulations"]]
    if split["by"] == "time":
        n_blocks, blocks = split["n_blocks"], split["test_blocks"]
        place = ("split", "test_blocks")
        if max(blocks) >= n_blocks:
            yield (
                place,
                (
                    f"split.test_blocks: got block {max(blocks)}, expected 0 to {n_blocks - 1} "
                    f"since split.n_blocks is {n_blocks}"
                ),
            )
        elif len(blocks) >= n_blocks:
            yield place, "split.test_blocks: all blocks are held out, none is left to train on"
        return
    for key in ("test_simulations", "validation_simulations"):
        for name in split[key]:
            if name not in names:
                yield ("split", key), f"split.{key}: there is no simulation {name!r}{nearest(name, names)}"
    if not split["test_simulations"]:
        yield ("split",), "split.by is `simulation`: name at least one in split.test_simulations"


def _name_mistakes(values: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    if not any(row["role"] == "train" for row in values["simulations"]):
        yield ("simulations",), "no simulation has the role `train`: there is nothing to train on"
    models = [model["name"] for model in values["models"]]
    for name in sorted({name for name in models if models.count(name) > 1}):
        yield ("models",), f"models: {name!r} stands {models.count(name)} times; give each its own `name`"


def _conformer_mistakes(values: dict[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    from mdlatent import sources

    if not values["conformers"]:
        return
    weights = values["conformers"]["autoencoder"]
    if "vae" in values["conformers"]["generators"] and (weights is None or not Path(weights).is_file()):
        got = "nothing" if weights is None else f"{weights!r}, which is no file"
        yield (
            ("conformers", "autoencoder"),
            f"conformers.autoencoder: got {got}, expected the trained weights that the generator 'vae' needs, the "
            "model.pt that `python -m mdlatent.conformers.fit_autoencoder --variational` writes",
        )
    uri, place = values["conformers"]["references"], ("conformers", "references")
    try:
        sources.extension(uri, sources.MOLECULES)
        source = sources.parse(uri)
    except ConfigError as error:
        yield place, f"conformers.references: {error}"
        return
    if source.kind == "path" and not Path(source.location).expanduser().is_file():
        yield (
            place,
            f"conformers.references: there is no file {source.location!r}, expected an SDF file with reference "
            "conformers; check the path, which is seen from the folder where the workflow runs",
        )


def _with_exponents(values: Any, rules: dict[str, Any]) -> Any:
    """Numbers such as `5e-6`, which YAML 1.1 reads as text for want of a decimal point, where a number is expected."""
    if isinstance(values, dict):
        inner = rules.get("properties", {})
        return {key: _with_exponents(value, inner.get(key, {})) for key, value in values.items()}
    if isinstance(values, list):
        return [_with_exponents(value, rules.get("items", {})) for value in values]
    if isinstance(values, str) and rules.get("type") == "number" and re.fullmatch(r"[+-]?\d+e[+-]?\d+", values.lower()):
        return float(values)
    return values


def _with_defaults(values: Any, rules: dict[str, Any]) -> Any:
    """Fill in the defaults of the schema, sections and list entries included."""
    if isinstance(values, dict) and "properties" in rules:
        for key, rule in rules["properties"].items():
            if key not in values:
                if "default" in rule:
                    values[key] = copy.deepcopy(rule["default"])
                elif rule.get("type") == "object":
                    values[key] = {}
            if key in values:
                values[key] = _with_defaults(values[key], rule)
    elif isinstance(values, list) and isinstance(rules.get("items"), dict):
        return [_with_defaults(item, rules["items"]) for item in values]
    return values


def _raise(mistakes: list[str]) -> None:
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def _dotted(path: KeyPath) -> str:
    return ".".join(str(part) for part in path) or "configuration"


def _show(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return f"{text[:80]} ({_kind(value)})"


def _kind(value: Any) -> str:
    kinds = {
        bool: "true/false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "keys and values",
        type(None): "nothing",
    }
    return kinds.get(type(value), type(value).__name__)
