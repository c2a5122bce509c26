"""What people look at: the report, predictions, and statistics that can be checked by hand; names that mean harm."""

import csv
import html.parser
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from craft_jax.data import FewShotSet, ImageFile, Labelled
from craft_jax.reporting import (
    Facts,
    Model,
    answers,
    class_lines,
    contact_sheet,
    in_markdown,
    measures,
    render,
    suggestions,
    text,
    words,
)
from craft_jax.reporting.predictions import write_predictions

HOSTILE = (
    "<script>document.title = 'taken'</script>",
    "a | b",
    "two\nlines\x1b[31m",
    "=HYPERLINK(\"http://example.com\")",
    "long " * 60,
    "\u202eشجرة الزيتون",
)  # fmt: skip
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def judged(classes, images=24, held_out=12):
    rng = np.random.default_rng(0)
    labels, seen = rng.integers(classes, size=images), rng.integers(classes, size=held_out)
    towards = [2 * np.eye(classes)[part] + rng.normal(size=(len(part), classes)) for part in (labels, seen)]
    return answers.judge("prompt", towards[0], labels, towards[1], seen)


def facts(tmp_path, names=HOSTILE, **more):
    said = judged(len(names))
    items = []
    for i, label in enumerate(said.test.labels):
        path = tmp_path / f"<b>{i}&.png"
        Image.new("RGB", (60, 40), (10 * i, 90, 120)).save(path)
        items.append(Labelled(ImageFile(path), int(label)))
    ledger = {
        "prompts": 69, "search_predictions": 900, "centre_predictions": 80, "evaluation_predictions": 20, "texts": 18,
        "probe_predictions": 36, "images_encoded": 42, "requests": 0, "money": 0.0,
    }  # fmt: skip
    right = 100 * said.test.right.mean()
    result = {
        "accuracy": right, "zero_shot": 30.0, "queries": 69, "seconds": 12.3, "chosen": "prompt", "learn": "both",
        "prompts_per_image": {"prompt": 1}, "black_box": HOSTILE[0], "split": HOSTILE[1], "notes": [HOSTILE[2]],
        "train_images": 9, "estimator": "antithetic", "ledger": ledger,
    }  # fmt: skip
    models = [Model("zero-shot", "zero-shot", 1, 30.0, 1.2), Model("prompt", "tuned prompt alone", 1, right, 1.1)]
    rows = [
        {"step": i, "prompts": 10 * i, "train_refined": 50.0 + i, "test_refined": 40.0, "test_prompt_only": right}
        for i in range(1, 6)
    ]
    given = {
        "title": HOSTILE[0],
        "result": result,
        "models": models,
        "choice": words.choice(models, "prompt", 12, 0),
        "rows": rows,
        "costs": words.costs(ledger, 6),
        "changed": [("black_box.template", HOSTILE[0], "a photo of a {}.")],
        "settings": [("data.root", HOSTILE[3])],
        "command": HOSTILE[0],
        "judged": said,
        "class_names": names,
        "test": items,
        "suggestions": suggestions.Suggestions(
            [suggestions.Suspect(0, names[0], names[-1], 0.9, f"like {names[1]}", "<b>.png", "")],
            [suggestions.Helped(names[2], 4, 1, 3, 0.2)],
        ),
    }
    return Facts(**given | more)


class Page(html.parser.HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.addresses = [], "", []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_a_reports_names_stay_text_and_nothing_is_fetched(tmp_path):
    page = Page(render(facts(tmp_path)))

    assert not {"script", "b>", "link", "iframe", "object"} & set(page.tags)
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert len(page.addresses) >= 24  # all that there are, as the least sure
    assert HOSTILE[0] in page.text
    assert "two\\nlines\\x1b[31m" in page.text
    assert "\\u202eشجرة الزيتون" in page.text


def test_a_report_says_why_what_it_cost_and_how_sure_that_is(tmp_path):
    page = Page(render(facts(tmp_path)))

    assert "Deployed is prompt, since 12 held-out photographs favour it: cross-entropy 1.100 against 1.200" in page.text
    assert {what: total for what, total, _ in words.costs(facts(tmp_path).result["ledger"], 6)} == {
        "queries (prompts)": "69", "predictions (prompts x images)": "1,036", "images encoded": "42"
    }  # fmt: skip
    assert "95 % interval" in page.text
    assert "Expected calibration error" in page.text


def told(sentences=HOSTILE):
    """What a search over texts has found, in the words of somebody who means harm."""
    return {
        "best": {"wording": sentences[0], "loss": 1.0, "captions": list(sentences)},
        "start": {"wording": sentences[1], "loss": 2.0},
        "combined": [{"wording": sentence, "loss": 1.5, "weight": 0.1} for sentence in sentences],
        "details": {name: name for name in sentences},
        "left_out": 3, "wordings": 40, "calls": 9, "notes": list(sentences),
    }  # fmt: skip


def test_sentences_of_a_language_model_stay_text_and_cost_what_they_cost(tmp_path):
    plain = facts(tmp_path)
    ledger = plain.result["ledger"] | {"proposal_calls": 9, "proposal_tokens": 12345, "proposal_money": 0.5}
    page = Page(render(facts(tmp_path, result=plain.result | {"wordings": told(), "ledger": ledger})))

    assert not {"script", "b>", "link", "iframe", "object"} & set(page.tags)
    assert page.text.count(HOSTILE[0]) > Page(render(plain)).text.count(HOSTILE[0]) + 3
    assert "was called 9 times, for 12,345 tokens and 0.50 at the prices set" in page.text
    lines = "\n".join(words.wordings(told())).splitlines()
    assert [line.replace("\\|", "").count("|") for line in lines if line.startswith("|")] == [4] * (2 + len(HOSTILE))
    assert sum(line.startswith("- ") for line in lines) == 3 * len(HOSTILE)
    assert "two\nlines" not in "\n".join(lines)
    assert ("calls of a language model", "9", []) in words.costs(ledger, 6)


def noise(path, seed, flat=False):
    grey = np.random.default_rng(seed).integers(0, 255, (12, 12), np.uint8) * (not flat)
    Image.fromarray(grey).resize((90, 90)).save(path)
    return ImageFile(path)


def test_suspects_are_twins_and_labels_that_are_ruled_out_and_the_rest_says_what_to_collect(tmp_path):
    train = [Labelled(noise(tmp_path / f"train{i}.png", i), i % 3) for i in range(6)]
    images = [noise(tmp_path / f"held{i}.png", 100 + i, flat=i == 2) for i in range(8)]
    images[0] = ImageFile(tmp_path / "twin.jpg")
    Image.open(tmp_path / "train1.png").resize((70, 80)).save(tmp_path / "twin.jpg")
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    logits = np.full((8, 3), 0.0)
    logits[0, 1] = 1.0  # looks like train1, of class 1
    logits[1, 2] = 9.0  # ruled out
    logits[2, 1] = 1.0  # a mistake like others
    logits[[3, 4, 5, 6], labels[3:7]] = 5.0
    logits[7, 0] = 0.5
    judged = answers.judge("prompt", logits, labels, logits, labels)._replace(temperature=1.0)
    found = suggestions.suggest(
        judged._replace(held_out=answers.judge("", logits, labels, logits[:0], labels[:0]).test),
        train, [Labelled(image, int(label)) for image, label in zip(images, labels, strict=True)], ("a", "=b", "c|"),
    )  # fmt: skip

    assert {suspect.place: suspect.why.rpartition("/")[2] for suspect in found.suspects} == {
        0: "train1.png", 1: "its label is all but ruled out; it may be mislabelled"
    }  # fmt: skip
    assert [(helped.name, helped.shots, helped.right, helped.held_out) for helped in found.helped] == [
        ("a", 2, 0, 1), ("c|", 2, 2, 3)
    ]  # fmt: skip
    assert all("c\\|" in line for line in suggestions.markdown(found) if "c" in line and "2 of 3" in line)
    assert suggestions.suggest(judged, train, (), ("a", "b", "c")) == suggestions.Suggestions()


def test_at_most_three_photographs_of_a_class_are_suspected(tmp_path):
    image = noise(tmp_path / "x.png", 1)
    logits = np.tile([0.0, 9.0], (6, 1))
    judged = answers.judge("prompt", logits, np.zeros(6, int), logits, np.zeros(6, int))
    sure = judged.held_out._replace(tempered=np.full(6, 0.99))
    found = suggestions.suggest(judged._replace(held_out=sure), (), [Labelled(image, 0)] * 6, ("a", "b"))

    assert len(found.suspects) == 3


def read(folder, names, train=2, test=3):
    """A set of the classes that `names` lists, of which the last has no test photograph."""
    Image.new("RGB", (60, 40), "teal").save(folder / "<b>.png")
    image = ImageFile(folder / "<b>.png")
    labels = range(len(names))
    parts = [
        [Labelled(image, label) for label in of for _ in range(n)] for of, n in ((labels, train), (labels[:-1], test))
    ]
    return FewShotSet(names, tuple(parts[0]), (), tuple(parts[1]), split=HOSTILE[0], notes=(HOSTILE[1],))


def test_a_contact_sheet_has_a_row_a_class_and_its_names_stay_text(tmp_path):
    page = Page(contact_sheet(read(tmp_path, HOSTILE), [Labelled(ImageFile(tmp_path / "gone.png"), 0)], ["a note"]))

    assert not {"script", "b>", "link", "iframe", "object"} & set(page.tags)
    assert page.tags.count("section") == len(HOSTILE)
    assert len(page.addresses) == 6 * 2 + 5 * 3  # less what cannot be read
    assert page.text.count("cannot be read") == 1
    assert "two\\nlines\\x1b[31m" in page.text


def test_a_list_of_classes_fits_a_screen_and_sums_up_the_rest(tmp_path):
    few, many = (class_lines(read(tmp_path, names), ()) for names in (HOSTILE, tuple(map(str, range(101)))))

    assert few[3].split() == ["two\\nlines\\x1b[31m", "2", "0", "3"]
    assert few[6].split()[-3:] == ["2", "0", "0"]
    assert max(map(len, few)) < 80
    assert len(many) == 31
    assert many[-1].split() == ["and", "72", "more", "classes", "144", "0", "213"]


def test_a_choice_that_the_test_would_not_have_made_says_so():
    models = [
        Model("prompt", "", 1, 33.3, 2.0),
        Model("prompt + refinement", "", 1, 43.1, 2.5),
        Model("probes + head", "", 22, 50.0, 1.0),
    ]

    sentence = words.choice(models, "prompt", 8, 1)
    assert "deploy.prompts_per_image=1 leaves out probes + head" in sentence
    assert "on the test, which has no say in it, probes + head is right more often (50.0 % against 33.3 %)" in sentence
    unseen = words.choice([model._replace(held_out_loss=None) for model in models], "prompt", 0, 0)
    assert "no photographs were held out" in unseen


def test_1000_photographs_and_200_classes_make_a_page_below_5_megabytes(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "large.png"
    Image.fromarray(rng.integers(256, size=(400, 600, 3), dtype=np.uint8)).save(path)
    said = judged(200, images=1000)
    items = [Labelled(ImageFile(path), int(label)) for label in said.test.labels]
    names = [f"class {i}" for i in range(200)]

    page = render(facts(tmp_path, names=HOSTILE, judged=said, class_names=names, test=items))
    assert len(page) < 5_000_000
    assert page.count("<figure>") == 49
    assert "of 200 classes the 24 with the most mistakes" in page


def test_predictions_are_one_line_a_photograph_and_no_formula(tmp_path):
    said = judged(6)
    items = [Labelled(ImageFile(f"{name}.png"), i) for i, name in enumerate(HOSTILE)]
    write_predictions(tmp_path / "p.csv", items, HOSTILE, said.test)
    lines = (tmp_path / "p.csv").read_text().splitlines()
    rows = list(csv.DictReader(lines))

    assert len(lines) == 7
    assert [row["path"] for row in rows][3] == './=HYPERLINK("http://example.com").png'
    assert [row["truth"] for row in rows][3] == '\'=HYPERLINK("http://example.com")'
    assert float(rows[0]["probability"]) == pytest.approx(said.test.probability[0, 0], abs=1e-6)
    assert not [value for row in rows for value in row.values() if value.startswith(("=", "+", "-", "@"))]


def test_text_in_markdown_makes_no_tag_column_or_line():
    assert in_markdown("<b>|\n*x*") == r"\<b\>\|\\n\*x\*"
    assert text.code_in_markdown("a``b") == "``` a``b ```"


def test_answers_are_read_as_they_were_kept_and_not_for_another_model(tmp_path):
    said = judged(6)
    said.save(tmp_path)
    read = answers.read(tmp_path, "prompt", 24, 12)

    assert read.temperature == said.temperature
    np.testing.assert_array_equal(read.held_out.tempered, said.held_out.tempered)
    assert answers.read(tmp_path, "zero-shot", 24, 12) is None
    assert answers.read(tmp_path, "prompt", 23, 12) is None
    (tmp_path / answers.FILE).write_bytes(b"PK\x03\x04")
    assert answers.read(tmp_path, "prompt", 24, 12) is None


# Statistics


@pytest.mark.parametrize(
    ("right", "tested", "low", "high"), [(0, 10, 0.0, 30.85), (10, 10, 69.15, 100.0), (81, 263, 25.27, 36.76)]
)
def test_the_binomial_interval_is_clopper_and_pearsons(right, tested, low, high):
    assert measures.interval(right, tested) == pytest.approx((low, high), abs=0.006)


@pytest.mark.parametrize(("first", "second", "p"), [(0, 0, 1.0), (5, 5, 1.0), (1, 9, 0.021484375), (0, 5, 0.0625)])
def test_mcnemars_exact_p_value(first, second, p):
    assert measures.mcnemar(first, second) == pytest.approx(p)
    assert measures.mcnemar(second, first) == pytest.approx(p)


def test_the_temperature_undoes_a_scale_of_the_logits():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)  # drawn by their own softmax

    assert measures.temperature(4 * logits, labels) == pytest.approx(4, rel=0.1)


def test_calibration_error_is_zero_where_confidence_is_what_it_claims():
    sure = np.repeat([0.25, 0.75], 4)
    right = np.array([1, 0, 0, 0, 1, 1, 1, 0], bool)

    assert measures.calibration_error(measures.reliability(sure, right)) == pytest.approx(0)
    assert measures.calibration_error(measures.reliability(sure, ~right)) == pytest.approx(0.5)


# In a browser


@pytest.fixture
def browser(tmp_path):
    if not CHROMIUM:
        pytest.skip("no Chromium is installed here")

    def run(*flags):
        command = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--hide-scrollbars", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,1200", *flags,
        ]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    return run


@pytest.mark.slow
def test_a_browser_shows_a_hostile_report_in_light_and_dark_and_runs_nothing(tmp_path, browser):
    page, shot = tmp_path / "report.html", tmp_path / "shot.png"
    page.write_text(render(facts(tmp_path)), encoding="utf-8")
    seen = []
    for scheme in (1, 0):
        browser(f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={shot}", page.as_uri())
        seen.append(np.asarray(Image.open(shot).convert("L")))
    dom = browser("--dump-dom", page.as_uri())

    assert "<title>&lt;script&gt;document.title = 'taken'&lt;/script&gt;</title>" in dom
    assert "<script" not in dom
    light, dark = (np.median(picture) for picture in seen)
    assert light > 240
    assert dark < 40
    assert all((picture != np.median(picture)).any(axis=0)[-3:].sum() == 0 for picture in seen)  # nothing runs over
