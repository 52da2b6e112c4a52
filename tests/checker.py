"""What an editor says of code that uses the library: the type checker over the README, the pages and the examples.

Run as a script (`make check`) it lists what is wrong there, and its exit status is 1 if anything is.
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from pages import code, pages, ROOT

SETTINGS = {"typeCheckingMode": "standard"}
# Arguments of NumPyro that take more than their annotations say.
NARROW = re.compile(r'parameter "(dense_mass|max_tree_depth)" of type')


def diagnostics(files: dict[str, str]) -> list[dict[str, Any]]:
    """What the checker says of files of a user, by name, in this environment."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (pathlib.Path(folder) / name).write_text(text)
        (pathlib.Path(folder) / "pyrightconfig.json").write_text(json.dumps(SETTINGS))
        command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--outputjson"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.stdout, done.stderr
        report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == len(files), done.stderr
    return [found | {"file": pathlib.Path(found["file"]).name} for found in report["generalDiagnostics"]]


def code_of_users() -> Iterator[tuple[pathlib.Path, str]]:
    for page in pages():
        yield ROOT / page, code(ROOT / page)
    for path in sorted((ROOT / "examples").rglob("*.py")):
        yield path, path.read_text()
    for path in sorted((ROOT / "examples").glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        yield path, "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def main() -> int:
    texts = {path.relative_to(ROOT): text for path, text in code_of_users()}
    names = {re.sub(r"\W", "_", str(path)) + ".py": path for path in texts}
    found = diagnostics({name: texts[path] for name, path in names.items()})
    wrong = [one for one in found if one["severity"] == "error" and not NARROW.search(one["message"])]
    for one in wrong:
        path, line = names[one["file"]], one["range"]["start"]["line"]
        print(f"{path}:{line + 1}: {one['message']}\n    {texts[path].splitlines()[line].strip()}")
    print(f"{len(wrong)} errors in {len(texts)} pages and scripts of users")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
