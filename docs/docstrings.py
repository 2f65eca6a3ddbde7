"""Docstrings as the site shows them: fields of specs as a list, names of code as code, and public names as links."""

from __future__ import annotations

import inspect
import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

import harness

LOGGER = logging.getLogger(__name__)

FIELDS = re.compile(r"^([a-z_][\w]*(?:, [a-z_][\w]*)*): (.*)$")
NAMES = r"[a-z_]\w*(?:, [a-z_]\w*)*: "
ENTRY = re.compile(rf"^( *){NAMES}.*(?:\n\1 {{4,}}\S.*)*", re.MULTILINE)
"""A line that begins with a name, or names, and a colon, and the lines that go on with it."""
ALIAS = re.compile(r"TypeAliasForwardRef\('([\w.]+)'\)")
"""How Sphinx writes a name of `autodoc_type_aliases` within a union."""
CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", shown, priority=100)  # before napoleon
    app.connect("autodoc-process-signature", signature)
    app.add_transform(Links)
    return {"parallel_read_safe": True}


def shown(app: Sphinx, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Rewrite a docstring in place as reStructuredText."""
    text = apart("\n".join(lines))
    if inspect.isclass(found) and hasattr(found, "model_fields"):
        prose, _ = split(apart(inspect.cleandoc(found.__doc__ or "")))
        lines[:] = [*marked(prose).splitlines(), "", *fields(found)]
    elif inspect.isclass(found):  # with sections as napoleon reads them, or with fields as specs have them
        prose, described = split(text)
        lines[:] = [
            *marked(prose).splitlines(),
            "",
            *(f"* **{name}**: {marked(described[name])}" for name in described),
        ]
    else:
        lines[:] = marked(text).splitlines()


def apart(text: str) -> str:
    """Every name on a line of its own, also where the source has several descriptions in one line."""
    return ENTRY.sub(lambda entry: re.sub(rf"(?<=\.)\s+(?={NAMES})", f"\n{entry[1]}", entry[0]), text)


def split(text: str) -> tuple[str, dict[str, str]]:
    """The prose of a docstring, and the texts of the fields that it describes; fields that share one have it all."""
    prose: list[str] = []
    described: dict[str, str] = {}
    current: tuple[str, ...] = ()
    for line in text.splitlines():
        if match := FIELDS.match(line):
            current = tuple(match[1].split(", "))
            described |= dict.fromkeys(current, match[2])
        elif current and line.startswith("    "):
            described |= {field: f"{described[field]} {line.strip()}" for field in current}
        else:
            current = ()
            prose.append(line)
    return "\n".join(prose), described


def fields(spec: Any) -> list[str]:
    """A list of the fields of a spec: name, type, range, default, meaning."""
    texts: dict[str, str] = {}
    for kind in reversed(written(spec)):
        texts |= split(apart(inspect.cleandoc(kind.__doc__ or "")))[1]
    found = []
    for name, field in spec.model_fields.items():
        if name == "kind":
            continue
        if name not in texts:
            LOGGER.warning("%s: its docstring says nothing of %s", spec.__name__, name)
        facts = ", ".join(part for part in (stated(spec, name), limits(field.metadata), default(spec, name)) if part)
        found += [f"* **{name}** ({facts})" + f": {marked(texts.get(name, ''))}"]
    return [*found, ""]


def written(spec: Any) -> list[type]:
    """The class and its bases as the source has them: without pydantic's own, and those of a generic for one type."""
    return [kind for kind in spec.__mro__ if kind.__module__.startswith("harness") and "[" not in kind.__name__]


def stated(spec: Any, name: str) -> str:
    """The type of a field as the source says it."""
    found = (vars(kind).get("__annotations__", {}) for kind in written(spec))
    text = next(annotations[name] for annotations in found if name in annotations)
    if text == "S":  # the start of an evaluation, which its type says
        text = getattr(spec.model_fields[name].annotation, "__name__", "Start")
    return f"``{text}``"


def limits(metadata: list[Any]) -> str:
    """The range of a number."""
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found = [f"{sign} {getattr(one, key)}" for one in metadata for key, sign in signs.items() if hasattr(one, key)]
    return ", ".join(found)


def default(spec: Any, name: str) -> str:
    """The default of a field in words."""
    field = spec.model_fields[name]
    if not field.is_required():
        value = field.default
        return f"default ``{type(value).__name__}()``" if isinstance(value, harness.Spec) else f"default ``{value!r}``"
    return "may be left out" if re.search(rf"\b{name}: [^\n]* = derived\(\)", _sources(spec)) else ""


def _sources(spec: Any) -> str:
    return "".join(inspect.getsource(kind) for kind in written(spec))


def marked(text: str) -> str:
    """Text in which `code` is code, and no other sign means anything."""
    parts, at = [], 0
    for match in CODE.finditer(text):
        parts += [
            _plain(text[at : match.start()]),
            f"``{match[2]}``" + ("\\ " if text[match.end() : match.end() + 1].isalnum() else ""),
        ]
        at = match.end()
    return "".join([*parts, _plain(text[at:])])


def _plain(text: str) -> str:
    return re.sub(r"([*|\\]|_(?=\W|$))", r"\\\1", text)


def signature(app: Sphinx, what: str, name: str, found: Any, options: Any, given: str, returned: str) -> Any:
    """A spec is shown with the names of its fields; the list below has types and defaults. Unions have their names."""
    if inspect.isclass(found) and hasattr(found, "model_fields"):
        names = [name for name in found.model_fields if name != "kind"]
        return f"({', '.join(names) if len(names) < 6 else '...'})", ""
    return tuple(text and ALIAS.sub(r"~\1", text) for text in (given, returned))


class Links(SphinxTransform):
    """Code that is a public name leads to its place in the reference."""

    default_priority = 5

    def apply(self, **_: Any) -> None:
        if self.env.docname == "generated/gallery":
            return  # there code is the name of a study, such as a2mim_site
        for literal in list(self.document.findall(nodes.literal)):
            name = literal.astext().removeprefix("harness.").removesuffix("()")
            if name not in harness.__all__ or isinstance(literal.parent, nodes.reference | pending_xref | nodes.title):
                continue
            link = pending_xref("", refdomain="py", reftype="obj", reftarget=f"harness.{name}", refexplicit=True)
            link["refdoc"] = self.env.docname
            literal.replace_self(link)
            link += literal
