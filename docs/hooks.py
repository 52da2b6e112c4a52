"""Hooks of mkdocs: the notebooks of `examples` as pages, with the outputs that they hold, and the scripts of the gallery."""

import base64
import json
import pathlib
import re
import textwrap

import latex2mathml.converter
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path in sorted(EXAMPLES.glob("*.ipynb")):
        page, pictures = converted(json.loads(path.read_text()), path.stem)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """A page of the gallery ends with the script that makes its figures."""
    folder, _, name = page.file.src_uri.rpartition("/")
    if folder != "gallery" or name == "index.md":
        return markdown
    script = (EXAMPLES / "gallery" / name).with_suffix(".py").read_text()
    code = textwrap.indent(f"```python\n{script}```", "    ")
    return f'{markdown}\n\n??? example "What makes the figures"\n\n{code}\n'


def converted(notebook: dict, stem: str) -> tuple[str, dict[str, bytes]]:
    """The text of a page, and its pictures by name."""
    parts, pictures = [], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(with_formulas(source))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            if output["output_type"] == "stream":
                parts.append(f'```text title="Output"\n{"".join(output["text"]).rstrip()}\n```')
            else:
                name = f"{stem}_{len(pictures)}.png"
                pictures[name] = base64.b64decode(output["data"]["image/png"])
                parts.append(f"![What the cell above draws]({name})")
    first, *rest = parts
    source = f"The notebook is `examples/{stem}.ipynb`, and what it printed and drew is shown as it is kept there."
    return "\n\n".join([first, source, *rest]) + "\n", pictures


def with_formulas(text: str) -> str:
    """Formulas in dollars as MathML, which browsers show without a script; code stays as it is."""
    pieces = re.split(r"(```.*?```|`[^`\n]+`)", text, flags=re.DOTALL)
    return "".join(piece if i % 2 else _formulas(piece) for i, piece in enumerate(pieces))


def _formulas(text: str) -> str:
    block = lambda found: f"<div>{latex2mathml.converter.convert(found[1].strip(), display='block')}</div>"
    text = re.sub(r"\$\$(.+?)\$\$", block, text, flags=re.DOTALL)
    return re.sub(r"\$([^$\n](?:[^$]*[^$\s])?)\$", lambda found: latex2mathml.converter.convert(found[1]), text)
