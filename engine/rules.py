"""Which values an option or a setting may have: types, and the check that names what is wrong."""

from functools import cache
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from core.errors import InputError, short, shortened


class SettingError(InputError):
    """A setting that does not exist, has no effect, or cannot have the value given."""


def ascending(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("the first number should not be greater than the second")
    return pair


def odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError("it should be odd")
    return number


Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
MinusOneOrMore = Annotated[int, Field(ge=-1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
BelowOne = Annotated[Number, Field(ge=0, lt=1)]
ThreeNumbers = tuple[Number, Number, Number]
ThreePositive = tuple[Positive, Positive, Positive]

# What pydantic says in a programmer's words.
REASONS = {
    "int_type": "it should be a whole number",
    "float_type": "it should be a number",
    "bool_type": "it should be True or False",
    "string_type": "it should be text",
    "tuple_type": "it should be a list, as in (1, 2)",
    "missing": "this entry is missing",
    "too_long": "it has too many entries",
}


def check_value(key: str, value: Any, rule: Any) -> None:
    """Check a value that a user gives against a type.

    Raises:
        SettingError: naming ``key``, if ``rule`` does not admit the value.
    """
    for text in value if isinstance(value, list | tuple) else (value,):
        if isinstance(text, str) and ("\0" in text or not _is_unicode(text)):
            raise SettingError(f"{key} is {shortened(ascii(value))}; it should be plain text")
    try:
        _adapter(rule).validate_python(tuple(value) if isinstance(value, list) else value)
    except ValidationError as error:
        # Of a union every alternative complains; the first will do.
        problem = error.errors(include_url=False)[0]
        entry = [str(i + 1) for i in problem["loc"] if isinstance(i, int)][:1]
        where = f", entry {entry[0]}" if entry else ""
        reason = REASONS.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
        reason = reason.replace("Input should", "it should", 1)
        reason = reason.replace("greater than or equal to", "at least")
        reason = reason.replace("less than or equal to", "at most")
        raise SettingError(f"{key} is {short(value)}{where}; {reason}") from None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a pair of surrogates
        return False
    return True


@cache
def _adapter(rule: Any) -> TypeAdapter[Any]:
    # strict: "3" is not a number, 1 is not a truth value; a whole number counts as a fraction.
    return TypeAdapter(rule, config=ConfigDict(strict=True))


def rule_of_default(default: Any) -> Any:
    """The type of an option that declares none: that of its default."""
    if isinstance(default, bool):
        return bool
    if isinstance(default, int):
        return int
    if isinstance(default, float):
        return Number
    return str if isinstance(default, str) else object
