"""For the pages of the interface: signatures as they are at run time, which source that is only read does not show."""

import dataclasses
import importlib
import inspect
from collections.abc import Iterator

import equinox as eqx
import griffe


class RuntimeSignatures(griffe.Extension):
    """Gives every final Equinox module that has no `__init__` at run time the one of its fields, and shapes their quotes."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: object) -> None:
        objects = list(_objects(pkg))
        classes = [one for one in objects if isinstance(one, griffe.Class) and not _has_init(one)]
        for one in objects:
            if isinstance(one, griffe.Function):
                for parameter in one.parameters:
                    _quote(parameter.annotation)
                _quote(one.returns)
            elif isinstance(one, griffe.Attribute):
                _quote(one.annotation)
        for cls in classes:
            _complete(cls)


def _has_init(cls: griffe.Class) -> bool:
    return "__init__" in cls.all_members and cls.all_members["__init__"].runtime


def _objects(parent: griffe.Module | griffe.Class) -> Iterator[griffe.Object]:
    for member in parent.members.values():
        if not member.is_alias:
            yield member
            if isinstance(member, griffe.Module | griffe.Class):
                yield from _objects(member)


def _quote(annotation: griffe.Expr | str | None) -> None:
    """The shape in `Float[Array, "n"]` is no name of a type, as which it has been read."""
    if not isinstance(annotation, griffe.Expr):
        return
    for part in annotation.iterate(flat=False):
        if part is not annotation:  # a name consists of itself
            _quote(part)
    if isinstance(annotation, griffe.ExprSubscript) and isinstance(annotation.slice, griffe.ExprTuple):
        path = getattr(annotation.left, "canonical_path", "")
        if path.startswith("jaxtyping."):
            array, shape = annotation.slice.elements
            annotation.slice.elements = [array, '"' + str(shape).strip("'\"") + '"']


def _complete(cls: griffe.Class) -> None:
    found = getattr(importlib.import_module(cls.module.path), cls.name, None)
    if not (inspect.isclass(found) and issubclass(found, eqx.Module)) or cls.name.startswith("Abstract"):
        return
    fields = {field.name: field for field in dataclasses.fields(found)}
    parameters = [griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)]
    for name, parameter in inspect.signature(found).parameters.items():
        kind = griffe.ParameterKind[parameter.kind.name.lower()]
        annotation = cls.all_members[name].annotation if name in cls.all_members else None
        parameters.append(griffe.Parameter(name, annotation=annotation, kind=kind, default=_default(fields[name])))
    made = griffe.Function(
        "__init__", parameters=griffe.Parameters(*parameters), lineno=cls.lineno, endlineno=cls.endlineno
    )
    cls.set_member("__init__", made)


def _default(field: dataclasses.Field) -> str | None:
    if field.default is not dataclasses.MISSING:
        return repr(field.default)
    if field.default_factory is not dataclasses.MISSING:
        return f"{field.default_factory.__name__}()"
    return None
