"""Templates of ``provision/``: an undefined name is an error, and values stay values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tatin_jobs import data
from tatin_jobs.errors import AttemptError, PartMissing
from worker import provision


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(provision, "provision_folder", lambda: tmp_path)
    return tmp_path


def test_values_are_put_in(folder: Path) -> None:
    (folder / "a.j2").write_text("{# why #}\n{% if yes %}\nname = {{ name }}\n{% endif %}\n")
    assert provision.render("a.j2", yes=True, name="é") == "name = é\n".encode()


@pytest.mark.parametrize(
    ("template", "said"), [("{{ nmae }}", "'nmae' is undefined"), ("{% if %}", "Expected"), (None, "missing.j2")]
)
def test_fault_in_a_template_names_it(folder: Path, template: str | None, said: str) -> None:
    if template:
        (folder / "missing.j2").write_text(template)
    with pytest.raises(AttemptError, match=r"'missing\.j2' cannot be rendered") as failed:
        provision.render("missing.j2", name="x")
    assert said in (failed.value.seen or "")


def test_template_outside_the_folder_is_not_there(folder: Path) -> None:
    (folder.parent / "secret.j2").write_text("secret")
    with pytest.raises(AttemptError):
        provision.render("../secret.j2")


@pytest.mark.parametrize("value", ['"', "\\", "\n", "</script>", "{{ 1 + 1 }}", "\u2028", "'"])
def test_value_that_goes_through_tojson_stays_itself(folder: Path, value: str) -> None:
    (folder / "a.j2").write_text('{"a": {{ value | tojson }}}')
    assert json.loads(provision.render("a.j2", value=value)) == {"a": value}


def test_folder_is_found_in_a_checkout_and_in_a_wheel(tmp_path: Path) -> None:
    package = tmp_path / "site" / "tatin_jobs"
    with pytest.raises(PartMissing, match="'provision'"):
        data._folder("provision", package)
    (tmp_path / "site" / "provision").mkdir(parents=True)
    assert data._folder("provision", package) == tmp_path / "site" / "provision"
    (package / "_data" / "provision").mkdir(parents=True)
    assert data._folder("provision", package) == package / "_data" / "provision"


def test_own_folder_is_there() -> None:
    assert (data.provision_folder() / "opencode.json.j2").is_file()
