"""craft-jax compare: two runs side by side, on the same test photographs."""

import json

import pytest

from craft_jax.errors import UserError
from craft_jax.reporting import compare


def leave(folder, answers, **result):
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps({"accuracy": 50.0, "zero_shot": 40.0, "queries": 1000} | result))
    lines = [f"{i}.jpg,cat,{answer}" for i, answer in enumerate(answers)]
    (folder / "predictions.csv").write_text("\n".join(["path,truth,prediction", *lines]) + "\n")
    return folder


def test_two_runs_are_compared_photograph_by_photograph(tmp_path, capsys):
    one = leave(
        tmp_path / "a",
        ["cat"] * 9 + ["dog"] * 3,
        split="<b>\nx " + "a long split " * 20,
        ledger={"search_predictions": 1000, "centre_predictions": 30},
    )
    other = leave(tmp_path / "b", ["dog"] * 8 + ["cat"] * 2 + ["dog"] * 2)
    compare.main(["craft-jax compare", str(one), str(other)])
    shown = capsys.readouterr().out

    assert "Both have 1 photographs right, a alone 8, b alone 1, neither 2." in shown
    assert "p = 0.0391; the two differ" in shown
    assert "<b>\\nx" in shown
    assert "42.8 to 94.5" in shown
    assert "predictions in all  1,030" in shown
    assert all(len(line) <= 80 for line in shown.splitlines() if not line.startswith(("a: ", "b: ")))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "predictions.csv").unlink(), "has no predictions.csv; give the --workdir"),
        (lambda folder: (folder / "result.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "predictions.csv").write_text("path,truth,prediction\n7.jpg,cat,cat\n"), "4 are in"),
        (lambda folder: (folder / "predictions.csv").write_text("path\n7.jpg\n"), "is damaged"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused_in_one_line(spoil, message, tmp_path):
    folders = [leave(tmp_path / name, ["cat"] * 3) for name in "ab"]
    spoil(folders[1])

    with pytest.raises(UserError, match=message) as error:
        compare.main(["craft-jax compare", *map(str, folders)])
    assert "\n" not in str(error.value)
