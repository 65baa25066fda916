"""Read from the source: the only function that can make an image one to be had takes a verdict."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from pathlib import Path

SRC = Path(__file__).parents[2] / "src" / "calotype"
MODULES = sorted(SRC.rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef
Place = tuple[str, str]  # module, function


@functools.cache
def nodes() -> list[tuple[Place, ast.AST]]:
    """Every node of the source, with the innermost function around it."""
    found: list[tuple[Place, ast.AST]] = []

    def walk(module: str, node: ast.AST, around: str) -> None:
        found.append(((module, around), node))
        inner = node.name if isinstance(node, Function) else around
        for child in ast.iter_child_nodes(node):
            walk(module, child, inner)

    for path in MODULES:
        walk(str(path.relative_to(SRC)), ast.parse(path.read_text(encoding="utf-8")), "")
    return found


def calls(matches: Callable[[ast.Call], bool]) -> list[tuple[Place, ast.Call]]:
    return [(at, node) for at, node in nodes() if isinstance(node, ast.Call) and matches(node)]


def function(place: Place) -> Function:
    [found] = [
        node
        for (module, _), node in nodes()
        if isinstance(node, Function) and (module, node.name) == place
    ]
    return found


def writes_images(call: ast.Call) -> bool:
    """``insert(tables.images)``, in any of its spellings."""
    if not ast.unparse(call.func).endswith("insert"):
        return False
    return any(ast.unparse(each).split(".")[-1] == "images" for each in call.args)


def test_one_function_writes_images_and_it_takes_a_verdict() -> None:
    found = [
        place for place, _ in calls(writes_images) if not place[0].startswith("jobs/migrations")
    ]
    assert found == [("jobs/verdicts.py", "deliver")]
    deliver = function(found[0])
    [verdict] = [each for each in deliver.args.args if each.arg == "verdict"]
    assert verdict.annotation is not None
    assert ast.unparse(verdict.annotation) == "Verdict", "a verdict, never None"
    assert not deliver.args.defaults, "and none that is assumed"
    first = next(node for node in deliver.body if not isinstance(node, ast.Expr))
    assert isinstance(first, ast.If), "it is looked at before anything is written"
    assert ast.unparse(first.test) == "verdict.kind is not VerdictKind.ALLOW"
    assert isinstance(first.body[0], ast.Raise)


def test_raw_sql_writes_no_images_either() -> None:
    said = [
        place
        for place, node in nodes()
        if isinstance(node, ast.Constant) and "insert into images" in str(node.value).lower()
    ]
    assert said == []


def makes(name: str) -> Callable[[ast.Call], bool]:
    return lambda call: ast.unparse(call.func).split(".")[-1] == name


def test_files_come_only_of_a_picture_whose_verdict_allows_it() -> None:
    """``Finished`` has files in one place only, past a branch that ends what isn't allowed."""
    made = dict(calls(makes("Finished")))
    assert set(made) == {("flow/finish.py", "_finish"), ("flow/finish.py", "_signed")}
    empty = made["flow/finish.py", "_finish"]
    assert ast.unparse(empty.args[1]) == "{}", "what isn't allowed has no files"
    guard = function(("flow/finish.py", "_signed")).body[0]
    assert isinstance(guard, ast.If), "it is looked at before anything is made"
    assert ast.unparse(guard.test) == "allowed.verdict.kind is not VerdictKind.ALLOW"
    assert isinstance(guard.body[0], ast.Raise)


def test_images_are_made_of_finished_pictures_or_read_from_the_database() -> None:
    made = {
        place
        for place, _ in calls(makes("Image"))
        if not place[0].startswith(("engine/", "delivery/", "safety/", "provenance/"))  # PIL's
    }
    by_people = ("flow/review.py", "_made")  # of what ``Finisher.let_out`` made
    assert made <= {("flow/darkroom.py", "_store"), by_people, ("jobs/rows.py", "image_of")}


def test_no_verdict_that_was_kept_is_judged_by() -> None:
    """There is no cache of verdicts: what was said is written down, and no judgement reads it."""
    reads = {
        place
        for place, node in nodes()
        if isinstance(node, ast.Attribute) and ast.unparse(node).endswith("tables.verdicts")
    }
    assert reads == {("jobs/verdicts.py", "record")}


def ends(*said: str) -> Callable[[ast.Call], bool]:
    return lambda call: ast.unparse(call.func).endswith(said)


def test_what_is_sealed_is_opened_for_reviewers_and_for_two_people_at_a_command() -> None:
    """No address leads to a case; one leads to a review, and asks for a reviewer's key."""
    opened = {place for place, _ in calls(ends("sealed.open"))}
    reviews = {("flow/review.py", "picture"), ("flow/review.py", "_made")}
    exported = {("flow/review_export.py", "_picture")}
    cases = {("flow/cases.py", "unsealed"), ("flow/cases.py", "recover")}  # the latter: its record
    assert opened == reviews | exported | cases
    cases = {place for place, _ in calls(ends(".unsealed", "book.look"))}
    reports = {("flow/reports.py", "_next"), ("flow/reports.py", "_submit")}
    assert cases == reports | {("flow/cases.py", "look"), ("cli/reports.py", "look")}
    [(asked, _)] = calls(ends("reviews.picture"))
    [key] = [it for it in function(asked).args.args if it.arg == "key"]
    assert key.annotation is not None
    assert (asked[0], ast.unparse(key.annotation)) == ("api/review.py", "ReviewerKey")


def test_every_way_of_writing_images_is_seen() -> None:
    for source in (
        "insert(tables.images)", "sa.insert(images)", "sqlite.insert(tables.images)",
        "conn.execute(insert(tables.images).values(a=1))",
    ):  # fmt: skip
        found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
        assert any(writes_images(call) for call in found), source
    assert not any(
        writes_images(node)
        for node in ast.walk(ast.parse("insert(tables.jobs)"))
        if isinstance(node, ast.Call)
    )
