"""What the generators of metrics share: a fixture of cases, with its origin, one case per line."""

import importlib.metadata
import json
import pathlib

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures"


def save_cases(generator, seed, packages, cases):
    """Writes `../fixtures/<name of the generator>.json`; `packages` are those whose versions the figures depend on."""
    generator = pathlib.Path(generator)
    header = dict(
        generator=f"tests/golden/generate/{generator.name}",
        seed=seed,
        versions={package: importlib.metadata.version(package) for package in packages},
    )
    lines = [f'"{key}":{json.dumps(value)}' for key, value in header.items()]
    lines.append('"cases":[\n' + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]")
    (FIXTURES / generator.with_suffix(".json").name).write_text("{" + ",\n".join(lines) + "}\n")
