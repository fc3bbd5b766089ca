"""Write the generated parts of docs/ anew, or say that they have drifted.

python scripts/generate_docs.py --write    after a change of core/transitions.py
python scripts/generate_docs.py --check    exit code 1 when a file is not as it would be written

A generated part stands between two comments, `<!-- generated: NAME -->` and `<!-- end of NAME -->`;
what is outside of them is written by hand and left alone.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from failover_agent.core.state import Phase, Reason
from failover_agent.core.transitions import CANDIDACY_REASONS, EDGES, REASONS

DOCS = Path(__file__).resolve().parents[1] / "docs"


def state_diagram() -> Iterator[str]:
    """The edges as a Mermaid diagram; the letter and number is the rule."""
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield f"    [*] --> {Phase.STARTING}"
    for (before, after), edge in EDGES.items():
        # Mermaid ends a label at the first colon or semicolon.
        yield f"    {before} --> {after}: {edge.rule} - {re.split('[:;]', edge.sentence)[0]}"
    yield "```"


def edge_table() -> Iterator[str]:
    """The edges as a table."""
    yield "| from | to | rule | what happens | reasons |"
    yield "| --- | --- | --- | --- | --- |"
    for (before, after), edge in EDGES.items():
        reasons = ", ".join(f"`{reason}`" for reason in REASONS if reason in edge.reasons)
        if edge.reasons == CANDIDACY_REASONS:
            reasons = "why it asked: the first of the tables below"
        yield f"| `{before}` | `{after}` | {edge.rule} | {edge.sentence} | {reasons} |"


def candidacy_reasons() -> Iterator[str]:
    """Why a node asks for the service."""
    yield from _reasons(reason for reason in REASONS if reason in CANDIDACY_REASONS)


def other_reasons() -> Iterator[str]:
    """All the others that lead over an edge."""
    others = {reason for edge in EDGES.values() for reason in edge.reasons - CANDIDACY_REASONS}
    yield from _reasons(reason for reason in REASONS if reason in others)


def _reasons(reasons: Iterable[Reason]) -> Iterator[str]:
    yield "| reason | meaning |"
    yield "| --- | --- |"
    for reason in reasons:
        yield f"| `{reason}` | {REASONS[reason]} |"


Part = Callable[[], Iterator[str]]

GENERATED: Mapping[str, Mapping[str, Part]] = {
    "states.md": {
        "state diagram": state_diagram,
        "edges": edge_table,
        "reasons to ask": candidacy_reasons,
        "other reasons": other_reasons,
    },
}


def renewed(text: str, parts: Mapping[str, Part]) -> str:
    """`text` with each of its generated parts written anew."""
    for name, lines in parts.items():
        begin, end = f"<!-- generated: {name} -->", f"<!-- end of {name} -->"
        before, found_begin, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found_begin and found_end):
            raise SystemExit(f"no place for {name}: {begin} ... {end}")
        text = "\n".join([before + begin, "", *lines(), "", end + after])
    return text


def main(arguments: list[str]) -> int:
    """Check or write; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="say what has drifted")
    what.add_argument("--write", action="store_true", help="write it anew")
    asked = parser.parse_args(arguments)

    drifted = []
    for name, parts in GENERATED.items():
        file = DOCS / name
        text = file.read_text()
        if (anew := renewed(text, parts)) != text:
            drifted.append(file.name)
            if asked.write:
                file.write_text(anew)
    if drifted and asked.check:
        print(f"docs/{', docs/'.join(drifted)}: not as core/transitions.py has it;", end=" ")
        print("run: python scripts/generate_docs.py --write")
    return 1 if drifted and asked.check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
