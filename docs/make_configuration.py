"""Write docs/configuration.md from the schema: `make docs`. With `--check`, fail if the page is out of date."""

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow"))

from mdlatent import config  # noqa: E402

PAGE = ROOT / "docs" / "configuration.md"


def allowed(rule: dict[str, Any]) -> str:
    """What a key may be, in a few words."""
    if "enum" in rule:
        return " \\| ".join(f"`{value}`" for value in rule["enum"])
    kind = rule.get("type", "any")
    text = " or ".join(kind) if isinstance(kind, list) else kind
    number_or_auto = rule.get("pattern") == "^auto$"
    text = "integer" if number_or_auto else text
    for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤")):
        if key in rule:
            text += f" {sign} {rule[key]}"
    return text + (" or `auto`" if number_or_auto else "")


def rows(rules: dict[str, Any], required: list[str]) -> list[str]:
    """One table line per key."""
    lines = ["| key | may be | default | meaning |", "|---|---|---|---|"]
    for key, rule in rules.items():
        if "default" in rule:
            value = rule["default"]
            default = "`null`" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"
        else:
            default = "**required**" if key in required else "–"
        meaning = " ".join(rule.get("description", "").split()).replace("|", "\\|")
        lines.append(f"| `{key}` | {allowed(rule)} | {default} | {meaning} |")
    return lines


def page() -> str:
    """The whole page."""
    schema = config.schema()
    sections = {
        k: v for k, v in schema["properties"].items() if "properties" in v or "properties" in v.get("items", {})
    }
    plain = {k: v for k, v in schema["properties"].items() if k not in sections}
    text = [
        "# Configuration",
        "",
        "Made from `workflow/schemas/config.schema.yaml` by `make docs`; do not edit by hand.",
        "A study is one YAML file: `snakemake --configfile my-study.yaml`. Unknown or misspelt keys are refused.",
        "",
        "## Top level",
        "",
        *rows(plain, schema["required"]),
    ]
    for name, rule in sections.items():
        inner = rule if "properties" in rule else rule["items"]
        what = "a list; each entry has these keys" if "items" in rule else ""
        text += [
            "",
            f"## `{name}`",
            "",
            " ".join(rule.get("description", "").split()) + (f" ({what})" if what else "") + ".",
        ]
        text += ["", *rows(inner["properties"], inner.get("required", []))]
        if name == "models":
            for family, rule in schema["$defs"].items():
                text += ["", f"### family `{family}`", "", " ".join(rule["description"].split()) + "."]
                text += ["", *rows(rule["properties"], [])] if rule["properties"] else ["", "It has no `options`."]
                if "x-train" in rule:
                    own = ", ".join(f"`{key}` `{value}`" for key, value in rule["x-train"].items())
                    text += ["", f"Its defaults in the section `train`, under whatever the study says: {own}."]
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(
            0 if PAGE.read_text(encoding="utf-8") == page() else "docs/configuration.md is out of date: run `make docs`"
        )
    PAGE.write_text(page(), encoding="utf-8")
