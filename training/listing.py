"""What can be trained, read from the sources of `methods/`: to import them takes torch, and seconds."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from zoo.errors import RecipeError, did_you_mean

_METHODS = Path(__file__).parent / "methods"


def method_lines() -> dict[str, str]:
    """The first line of every method's docstring, by the method's name."""
    return {name: _first_line(source) for name, source in _sources().items()}


def recipe_lines() -> dict[str, str]:
    """The first line of every recipe's docstring, by METHOD/RECIPE.

    A recipe is a public function of a method's file that is annotated to return a `Recipe`.
    """
    return {
        f"{method}/{each.name}": _first_line(each)
        for method, source in _sources().items()
        for each in sorted(_functions(source), key=lambda function: function.name)
        if not each.name.startswith("_") and each.returns and ast.unparse(each.returns).strip("'") == "Recipe"
    }


def check_recipe(name: str) -> None:
    """RecipeError for a METHOD/RECIPE that there is not. What is in a user's own file, only importing it tells."""
    known = recipe_lines()
    if ".py" not in name and name not in known:
        raise RecipeError(
            f"no recipe {name!r}{did_you_mean(name, known)}; `zoo recipes` lists them; "
            "one of your own is given as ./file.py:recipe"
        )


@cache
def _sources() -> dict[str, ast.Module]:
    """The files of `methods/`, by their stems, in order."""
    files = sorted(each for each in _METHODS.glob("*.py") if each.stem != "__init__")
    return {file.stem: ast.parse(file.read_text(encoding="utf-8")) for file in files}


def _functions(source: ast.Module) -> list[ast.FunctionDef]:
    return [each for each in source.body if isinstance(each, ast.FunctionDef)]


def _first_line(documented: ast.Module | ast.FunctionDef) -> str:
    return (ast.get_docstring(documented) or "").partition("\n")[0]
