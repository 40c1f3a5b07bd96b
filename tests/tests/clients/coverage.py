"""Makes tests/COVERAGE.md: each operation of the API, and the test that covers each way in which it can end.

Usage: coverage.py --write | --check. Needs botocore, whose model says which operations there are. A test says what it
covers in a comment right above it, in any language:

    // covers: SplitShard success wrong-state
    // covers: PutRecord, PutRecords restart-survives

--check fails when the file is not what would be written, when a cell has no test and no reason, when a reason stands
where a test is, and when a marker names what the model does not have.
"""

import pathlib
import re
import subprocess
import sys

import botocore.session

sys.path.insert(0, str(pathlib.Path(__file__).parent / "boto3_operations"))
from members import LATER, NOT_ANSWERED  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[3]
TABLE = ROOT / "tests" / "COVERAGE.md"
PLACES = ["broker", "tests", "proto", "producer-lib", "consumer-lib"]
LANGUAGES = {".rs", ".py", ".sh", ".cjs"}
CELLS = ["success", "validation", "not-found", "wrong-state", "restart-survives"]
MARKER = re.compile(r"^\s*(?://|#)\s*covers:\s*(.*?)\s*$")
FUNCTION = re.compile(r"^\s*(?:pub(?:\([a-z]+\))? )?(?:async )?(?:fn|def|function) (\w+)")
# lines that may stand between a marker and its test
BETWEEN = re.compile(r"^\s*(?:#\[.*|\)\]|//.*|#.*|@.*)?$")

# why a cell cannot have a test
NAMES_NOTHING = "it names no stream, consumer or shard"
NO_INPUT = "it takes no input"
ANY_STATE = "it answers in every state of what it names"
ALWAYS_ALLOWED = "it is allowed whatever was set before"
NO_CELL = {
    NAMES_NOTHING: {
        "not-found": "CreateStream ListStreams DescribeLimits DescribeAccountSettings UpdateAccountSettings"
    },
    NO_INPUT: {"validation": "DescribeLimits DescribeAccountSettings"},
    ANY_STATE: {
        "wrong-state": "DescribeStream DescribeStreamSummary DescribeStreamConsumer DescribeLimits"
        " DescribeAccountSettings ListTagsForStream ListTagsForResource GetResourcePolicy"
    },
    ALWAYS_ALLOWED: {
        "wrong-state": "DisableEnhancedMonitoring EnableEnhancedMonitoring RemoveTagsFromStream UntagResource"
        " DeregisterStreamConsumer PutResourcePolicy DeleteResourcePolicy UpdateMaxRecordSize"
        " UpdateAccountSettings"
    },
}
REASONS = {
    (operation, cell): reason
    for reason, cells in NO_CELL.items()
    for cell, operations in cells.items()
    for operation in operations.split()
}


def model():
    """Operations that are offered, and those that come later."""
    names = botocore.session.get_session().get_service_model("kinesis").operation_names
    later = [name for name in names if any(word in name for word in LATER)]
    return sorted(set(names) - set(later)), sorted(later)


def sources():
    """Files of the repository, as git knows them or would."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *PLACES],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    files = {ROOT / line for line in listed.stdout.splitlines()}
    own = pathlib.Path(__file__).resolve()
    return sorted(path for path in files if path.suffix in LANGUAGES and path.exists() and path != own)


def markers(path):
    """Each marker of a file, with the name of the test below it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for at, line in enumerate(lines):
        marker = MARKER.match(line)
        if not marker:
            continue
        below = next((line for line in lines[at + 1 :] if not BETWEEN.match(line)), "")
        function = FUNCTION.match(below)
        # a script is one test
        name = function.group(1) if function else None
        if path.suffix in (".rs", ".py") and not name:
            yield at + 1, marker.group(1), None
        else:
            yield at + 1, marker.group(1), f"{path.relative_to(ROOT)}" + (f" `{name}`" if name else "")


def collect(operations):
    """The tests of each cell, and what is wrong with markers."""
    covered, problems = {}, []
    for path in sources():
        for line, text, test in markers(path):
            place = f"{path.relative_to(ROOT)}:{line}"
            if test is None:
                problems.append(f"{place}: no test stands below this marker")
                continue
            words = re.fullmatch(r"(\w+(?:,\s*\w+)*)((?:\s+[a-z-]+)+)", text)
            named = words and re.split(r",\s*", words.group(1))
            cells = words and words.group(2).split()
            if not words or set(cells) - set(CELLS) or set(named) - set(operations):
                problems.append(f"{place}: neither operations nor cells: {text}")
                continue
            for operation in named:
                for cell in cells:
                    covered.setdefault((operation, cell), set()).add(test)
    return covered, problems


def gaps(operations, covered):
    """Cells without a test and a reason, or with both."""
    for operation in operations:
        for cell in CELLS:
            key = (operation, cell)
            if key not in covered and key not in REASONS:
                yield f"{operation}: nothing covers {cell}"
            if key in covered and key in REASONS:
                yield f"{operation}: {cell} is covered by {sorted(covered[key])}, so its reason is wrong"
    for operation, cell in REASONS:
        if operation not in operations:
            yield f"{operation}: a reason, but no such operation"


def rendered(operations, later, covered):
    """The text of the table."""
    numbers = {test: at + 1 for at, test in enumerate(sorted({t for tests in covered.values() for t in tests}))}
    letters = {reason: chr(ord("a") + at) for at, reason in enumerate(NO_CELL)}

    def cell(key):
        if key in covered:
            return ", ".join(str(number) for number in sorted(numbers[test] for test in covered[key]))
        return f"– {letters[REASONS[key]]}" if key in REASONS else "**none**"

    lines = [
        "# What covers each operation of the Kinesis API",
        "",
        "Made by `tests/tests/clients/coverage.py --write` from the `covers:` markers of the tests (see CONTRIBUTING.md);",
        "`cargo test` checks it against the tests and against botocore's model. Numbers are those of the tests below,",
        "letters those of the reasons why a cell cannot have one.",
        "",
        "| operation | " + " | ".join(name.replace("-", " ") for name in CELLS) + " |",
        "|---" * (len(CELLS) + 1) + "|",
    ]
    lines += [f"| {name} | " + " | ".join(cell((name, each)) for each in CELLS) + " |" for name in operations]
    lines += ["", "Wrong state: well formed, but what is named is not in the state that the operation needs: the name"]
    lines += ["is used, the shard closed, the iterator or token expired, the mode another, the quota spent."]
    lines += ["Restart survives: kill -9 right after the reply; what was set, or what was answered, is there again."]
    lines += ["", "## Why a cell has no test", ""]
    lines += [f"- {letter}: {reason}" for reason, letter in letters.items()]
    lines += ["", "## Tests", ""]
    lines += [f"{number}. {test}" for test, number in numbers.items()]
    lines += ["", "## Members", ""]
    lines += ["That every member of every input is read, and every member of every output answered, is a part of"]
    lines += ["`boto3_operations` (`members.py`). Deliberately never answered:", ""]
    lines += [f"- `{path}`: {reason}" for path, reason in NOT_ANSWERED.items()]
    lines += ["", "## Later", "", "Known by name, and answered with a clear error until then: "]
    lines[-1] += ", ".join(later) + "."
    return "\n".join(lines) + "\n"


def main():
    operations, later = model()
    covered, problems = collect(operations)
    problems += gaps(operations, covered)
    text = rendered(operations, later, covered)
    if sys.argv[1:] == ["--write"]:
        TABLE.write_text(text, encoding="utf-8")
    elif sys.argv[1:] == ["--check"]:
        if not TABLE.exists() or TABLE.read_text(encoding="utf-8") != text:
            problems.append("tests/COVERAGE.md is not what the tests say; run coverage.py --write")
    else:
        sys.exit(__doc__)
    print("\n".join(problems), file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
