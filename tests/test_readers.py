"""The readers of JSON and tables: what is wrong is one line that names file and place."""

import json

import pytest

from core.errors import InputError, short
from core.files import read_json
from core.tables import read_table


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"a":' * 100_000, "cannot be read as JSON"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a": "\\ud800"}', "half of a surrogate pair"),
        ('{"\\uDFFF": 1}', "half of a surrogate pair"),
        ('{"a": NaN}', "number 'NaN' is not finite"),
        ("[-Infinity]", "number '-Infinity' is not finite"),
        ("[1e999]", "number '1e999' is not finite"),
        ('{"a": 1, "a": 2}', "key 'a' is there twice"),
        ("9" * 5000, "cannot be read as JSON"),
        ('{"a": 1\n"b": 2}', "line 2, column 1"),
        ("", "cannot be read as JSON"),
        (b"\xff\xfe{\x00", "cannot be read as UTF-8"),
    ],
)
def test_a_damaged_json_is_one_short_line(tmp_path, content, message):
    """It names the file, and does not print the content."""
    path = tmp_path / "a.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(InputError, match=message) as error:
        read_json(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value) and len(str(error.value)) < len(str(path)) + 200


def test_json_that_is_missing_or_a_folder_is_one_line(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        read_json(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path)


def test_good_json_is_read_as_json_reads_it(tmp_path):
    """With a byte-order mark, whole pairs of surrogates, and numbers of every kind."""
    value = {"a": [1, -2.5, 1e300, None, True, {"b": "\U0001f600"}], "é": ""}
    (tmp_path / "a.json").write_text(json.dumps(value), encoding="utf-8-sig")

    assert "\\ud83d" in (tmp_path / "a.json").read_text()
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label,path\na,b,c\n", "line 1: the column 'path' is there twice"),
        ("path,label,Path\na,b,c\n", "line 1: the column 'Path' is there twice"),
        ("path,label\na,b\nc,d,e\n", "line 3: has 3 cells, the header has 2.*is 'e'"),
        ("path,label,split\na,b,c\nd,e\n", "line 3: has 2 cells, .*column 'split' is missing"),
        ('path,label\n"a\nb",c\nd\n', "line 4: has 1 cells"),
        (b"path,label\n\xff,b\n", "cannot be read as a UTF-8 table"),
        ("path,label\n" + "x" * 200_000 + ",b\n", "cannot be read as a UTF-8 table"),
    ],
)
def test_a_damaged_table_is_one_line_with_its_place(tmp_path, content, message):
    path = tmp_path / "a.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(InputError, match=message) as error:
        read_table(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        "Path, Label\n a.png ,x\n\nb.png,\n",
        "Path\tLabel\na.png\tx\nb.png\t\n",
        "Path;Label\na.png;x\nb.png;\n",
        "Path,Label,\na.png,x,\nb.png,,\n",  # each line ends in a comma
        "Path,Label\na.png,x,,\nb.png,\n",
    ],
)
def test_a_good_table_is_read(tmp_path, content):
    """Commas, tabs or semicolons; blank lines and empty cells at a line's end mean nothing."""
    (tmp_path / "a.csv").write_text(content, encoding="utf-8-sig")
    table = read_table(tmp_path / "a.csv")

    assert [row for _, row in table.rows] == [
        {"Path": "a.png", "Label": "x"},
        {"Path": "b.png", "Label": ""},
    ]
    assert (table.column("path"), table.column("none")) == ("Path", None)


def test_a_long_value_is_shortened():
    assert short("a" * 10**6) == "'" + "a" * 76 + "..."
    assert short("abc") == "'abc'"
