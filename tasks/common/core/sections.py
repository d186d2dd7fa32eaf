"""params.yaml: one section a stage, each a frozen model that lives in the stage's folder as `params.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import ParamsError, nearest
from .yaml_files import read_yaml

PARAMS_FILE = "params.yaml"


class Section(BaseModel):
    """A section of params.yaml: unknown keys and numbers that are not finite are refused, and nothing changes after
    parsing."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


S = TypeVar("S", bound=Section)


def read_params(path: Path) -> dict[str, Any]:
    """The whole of params.yaml as a mapping, read as DVC reads it.

    Raises:
        ParamsError: the file is missing, is not YAML, or holds no mapping.
    """
    try:
        content = read_yaml(path, ParamsError)
    except FileNotFoundError:
        raise ParamsError(f"{path} does not exist", todo="run Graft in the folder of a project") from None
    if not isinstance(content, dict):
        raise ParamsError(f"{path} holds no sections", got=type(content).__name__, allowed="one section per stage")
    return content


def parse_section(model: type[S], values: object, section: str, file: str = PARAMS_FILE) -> S:
    """`values` as the frozen model of `section`.

    Raises:
        ParamsError: an unknown key (with the nearest valid one) or a value out of range; all faults in one message.
    """
    try:
        return model.model_validate({} if values is None else values)
    except ValidationError as error:
        faults = [_fault(fault, model, section) for fault in error.errors()]
        what = "; ".join(fault["what"] for fault in faults)
        first = faults[0]
        raise ParamsError(f"{file}: {what}", got=first["got"], allowed=first["allowed"], todo=first["todo"]) from None


def _fault(fault: Any, model: type[BaseModel], section: str) -> dict[str, Any]:
    key = ".".join([section, *(str(part) for part in fault["loc"])])
    if fault["type"] == "extra_forbidden":
        known = _fields(model, fault["loc"][:-1])
        return {
            "what": f"unknown key `{key}`",
            "got": fault["loc"][-1],
            "allowed": ", ".join(known),
            "todo": nearest(str(fault["loc"][-1]), known) or "remove the key",
        }
    return {
        "what": f"`{key}`: {fault['msg'][0].lower()}{fault['msg'][1:]}",
        "got": repr(fault["input"]),
        "allowed": _allowed(model, fault["loc"]),
        "todo": f"change `{key}`",
    }


def _fields(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return list(model.model_fields)


def _allowed(model: type[BaseModel], path: tuple[Any, ...]) -> str:
    properties = model.model_json_schema().get("properties", {})
    field = properties.get(str(path[0]), {}) if path else {}
    branches = field.get("anyOf", [])
    choices = field.get("enum") or [branch["const"] for branch in branches if all("const" in one for one in branches)]
    if choices:
        return " | ".join(map(str, choices))
    names = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {field[name]}" for name, sign in names.items() if name in field]
    return " and ".join(bounds) or str(field.get("description", ""))
