"""The versions of each schema that are kept, and what must hold between them and the current one.

`python -m tests.schemas.kept` keeps the current version of every schema that has
changed, with the golden bytes of its sample (schemas/versions/README.md).
"""

from __future__ import annotations

import json
from itertools import zip_longest
from pathlib import Path
from typing import Any

from schemas import codec
from tests.schemas.samples import SAMPLES

Schema = Any
FOLDER = Path(codec.__file__).parent
VERSIONS = FOLDER / "versions"
GOLDEN = Path(__file__).parent / "golden"
NAMES = {codec.file_name(record.__name__): record for record in codec.RECORDS}
HOW = "run `python -m tests.schemas.kept`, look at what it adds and commit that (schemas/versions/README.md)"


def current(name: str) -> Schema:
    """The schema of today, with the records inside it."""
    return codec.load(FOLDER / f"{name}.avsc")


def versions(name: str) -> dict[int, Path]:
    """Kept versions by number, oldest first."""
    paths = {int(path.name.split(".")[1]): path for path in VERSIONS.glob(f"{name}.*.avsc")}
    return dict(sorted(paths.items()))


def read(path: Path) -> Schema:
    """A kept schema."""
    return json.loads(path.read_text())


def without_docs(node: Schema) -> Schema:
    """What a schema means, for comparing; its words may be improved freely."""
    if isinstance(node, list):
        return [without_docs(item) for item in node]
    if isinstance(node, dict):
        return {key: without_docs(value) for key, value in node.items() if key != "doc"}
    return node


def problems(new: Schema, old: Schema, at: str = "") -> list[str]:
    """Why a reader of `new` may not understand what was written with `old`; empty if it always does."""
    if kind(new) != kind(old):
        return [f"{at}: the type changed from {kind(old)} to {kind(new)}"]
    if isinstance(new, list):
        return _union_problems(new, old, at)
    return _complex_problems(new, old, at) if isinstance(new, dict) else []


def _complex_problems(new: Schema, old: Schema, at: str) -> list[str]:
    match new["type"]:
        case "record":
            return _record_problems(new, old, f"{at}{new['name']}")
        case "enum":
            return _enum_problems(new, old, at)
        case "array":
            return problems(new["items"], old["items"], f"{at}[]")
        case "map":
            return problems(new["values"], old["values"], f"{at}{{}}")
    changed = new.get("logicalType") != old.get("logicalType")
    return [f"{at}: the logical type changed"] if changed else []


def kind(node: Schema) -> str:
    """Kind of a type: `long`, `record Endpoint`, `union`…"""
    if isinstance(node, list):
        return "union"
    if not isinstance(node, dict):
        return str(node)
    return f"{node['type']} {node['name']}" if "name" in node else str(node["type"])


def _union_problems(new: list[Schema], old: list[Schema], at: str) -> list[str]:
    found = [] if len(new) >= len(old) else [f"{at}: a branch of the union was removed"]
    for after, before in zip_longest(new[: len(old)], old[: len(new)]):
        found += problems(after, before, at)
    return found


def _record_problems(new: Schema, old: Schema, at: str) -> list[str]:
    before = {field["name"]: field for field in old["fields"]}
    found = []
    for field in new["fields"]:
        where = f"{at}.{field['name']}"
        if field["name"] in before:
            found += problems(field["type"], before[field["name"]]["type"], where)
        elif "default" not in field:
            found.append(f"{where}: a field that is added needs a default")
    if new["name"] == "MessagePublished":  # a public contract: producers and readers of every age
        gone = before.keys() - {field["name"] for field in new["fields"]}
        found += [f"{at}.{name}: MessagePublished never loses a field" for name in sorted(gone)]
    return found


def _enum_problems(new: Schema, old: Schema, at: str) -> list[str]:
    gone = sorted(set(old["symbols"]) - set(new["symbols"]))
    found = [f"{at}: the symbol {symbol} was removed" for symbol in gone]
    if set(new["symbols"]) - set(old["symbols"]) and "default" not in old:
        found.append(f"{at}: a symbol was added to an enum without default")
    return found


def golden(name: str, version: int) -> Path:
    """File with the bytes of the sample, in hexadecimal, as that version wrote it."""
    return GOLDEN / f"{name}.{version}.hex"


def lines(encoded: bytes) -> str:
    """Hexadecimal text: the ten bytes before the record on the first line, then 32 bytes a line."""
    head, rest = encoded[: codec.PREFIX_BYTES], encoded[codec.PREFIX_BYTES :]
    parts = [head, *(rest[i : i + 32] for i in range(0, len(rest), 32))]
    return "".join(f"{part.hex(' ')}\n" for part in parts)


def keep_changed() -> None:
    """Keep every schema that differs from the last version kept, and the golden bytes of its sample."""
    samples = {codec.file_name(type(sample).__name__): sample for sample in SAMPLES}
    today = codec.Codec()
    for name in NAMES:
        schema, kept = current(name), versions(name)
        number = max(kept, default=0)
        if not kept or without_docs(read(kept[number])) != without_docs(schema):
            path = VERSIONS / f"{name}.{number + 1}.avsc"
            path.write_text(json.dumps(schema, indent=2) + "\n")
            golden(name, number + 1).write_text(lines(today.encode(samples[name])))


if __name__ == "__main__":
    keep_changed()
