"""What a run leaves for programs without craft_jax answers as craft-jax predict does."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export as jax_export
from safetensors import safe_open

import craft_jax
from craft_jax import blackbox
from craft_jax.data import ImageFile, pixels
from craft_jax.errors import UserError
from craft_jax.export import classifier_of, command, program
from craft_jax.method import StackedHead
from craft_jax.training import checkpoints
from craft_jax.tuned_model import TunedModel
from tests import processes, random_resnet

ROOT = Path(__file__).parent.parent
PHOTOGRAPHS = sorted((ROOT / "docs" / "photographs").glob("*.jpg"))[:3]


@pytest.fixture
def on_probes(tuned):
    """A model that asks texts, with a head on their answers."""
    texts = ("a photo of a pizza.", "a photo of a grand piano.", "a photo of a sunflower.", "a drawing", "food")
    rng = np.random.default_rng(3)
    head = StackedHead(*(rng.normal(size=size).astype(np.float32) for size in ((5, 3), (3,))))
    return tuned._replace(texts=texts, stacked=head)


@pytest.fixture
def prompt_alone(tuned):
    return tuned._replace(head=jax.tree.map(np.zeros_like, tuned.head))


@pytest.fixture(params=["refined", "prompt_alone", "on_probes"])
def model(request, tuned):
    return tuned if request.param == "refined" else request.getfixturevalue(request.param)


@pytest.fixture
def squares(small_black_box):
    """Photographs as the page prepares them: float32 from 0 to 1."""
    size = small_black_box.image_size
    images = [pixels.centre_crop(ImageFile(path).open(), size) for path in PHOTOGRAPHS]
    return np.stack([np.asarray(image, np.float32) for image in images]) / 255


def save(folder, tuned, about=None):
    with checkpoints.Checkpoints(folder) as run:
        run.save(0, {"nothing": np.zeros(1)}, tuned, about or {}, refined_loss=0.0)
    return folder


def softmax(logits):
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def test_the_arrays_of_the_files_answer_as_predict_does(model, small_black_box, squares, tmp_path):
    says = craft_jax.predict(model, small_black_box, PHOTOGRAPHS)
    names = [str(tmp_path / "model.npz"), str(tmp_path / "model.safetensors")]
    command.main(["craft-jax export", f"--checkpoint={save(tmp_path / 'run', model)}", *names])
    stored = np.load(names[0], allow_pickle=False)
    features = np.asarray(jax.jit(blackbox.features_of(small_black_box).image_features)(squares))
    f = stored["scale"] * features @ stored["weights"].T + stored["bias"]
    if "hidden_kernel" in stored:
        c = f - f.mean(axis=-1, keepdims=True)
        hidden = np.maximum(c @ stored["hidden_kernel"] + stored["hidden_bias"], 0)
        f = f + hidden @ stored["out_kernel"] + stored["out_bias"]

    np.testing.assert_allclose(softmax(f), says, atol=2e-5)
    assert ("hidden_kernel" in stored) == (np.any(model.head["params"]["Dense_1"]["kernel"]) and not model.texts)
    with safe_open(names[1], "np") as other:
        about = json.loads(other.metadata()["about"])
        assert all(np.array_equal(other.get_tensor(name), stored[name]) for name in set(stored) - {"about"})
    assert about == json.loads(str(stored["about"]))
    assert about["class_names"] == list(small_black_box.class_names)


@pytest.mark.slow
def test_the_program_answers_as_predict_does_on_any_number_of_images(model, small_black_box, squares):
    inside = blackbox.features_of(small_black_box)
    whole = jax_export.deserialize(program(inside.image_features, classifier_of(model, inside), squares.shape[1]))
    says = craft_jax.predict(model, small_black_box, PHOTOGRAPHS)

    np.testing.assert_allclose(whole.call(squares), says, atol=2e-5)
    np.testing.assert_allclose(whole.call(squares[:1]), says[:1], atol=2e-5)
    assert set(whole.platforms) == {"cpu", "cuda", "tpu"}


def test_hostile_class_names_come_back_as_they_are(small_black_box, tuned, tmp_path):
    names = ("<script>alert(1)</script>", "=1+1|\n\x00", "ש" * 20)
    black_box = craft_jax.load_black_box("bundled", names)
    checkpoint = save(tmp_path / "run", tuned._replace(class_names=names, black_box=black_box.identity))
    command.main(["craft-jax export", f"--checkpoint={checkpoint}", str(tmp_path / "model.npz")])

    assert json.loads(str(np.load(tmp_path / "model.npz")["about"]))["class_names"] == list(names)


def test_a_model_behind_an_api_is_refused_in_one_line(tuned, tmp_path):
    class Flat:
        def encode_images(self, images):
            return images.mean(axis=(1, 2))

        def predict(self, prompts, images):
            return np.zeros((len(prompts), len(images), 2), np.float32)

    start = np.zeros((1, 3), np.float32)
    remote = craft_jax.connect_black_box(Flat(), ["red", "blue"], start, image_size=8, name="far away")
    with pytest.raises(UserError, match="far away answers from elsewhere"):
        blackbox.features_of(remote)


@pytest.mark.parametrize(("name", "says"), [("model.pkl", "suffix"), ("missing/model.npz", "make it first")])
def test_files_that_cannot_be_written_are_refused(name, says, tmp_path):
    with pytest.raises(UserError, match=says):
        command.main(["craft-jax export", f"--checkpoint={tmp_path}", str(tmp_path / name)])


@pytest.mark.slow
def test_the_program_of_a_resnet_takes_any_number_of_images(tmp_path):
    folder = random_resnet.write_folder(
        tmp_path / "tiny", random_resnet.TINY, random_resnet.weights(random_resnet.TINY)
    )
    black_box = craft_jax.load_black_box(str(folder), ("crab", "lotus"))
    inside = blackbox.features_of(black_box)
    head = {"params": {name: {"kernel": np.zeros((2, 2)), "bias": np.zeros(2)} for name in ("Dense_0", "Dense_1")}}
    tuned = TunedModel(black_box.initial_prompt, head, black_box.identity, black_box.class_names)
    whole = jax_export.deserialize(program(inside.image_features, classifier_of(tuned, inside), black_box.image_size))
    size = black_box.image_size
    squares = [np.asarray(pixels.centre_crop(ImageFile(path).open(), size), np.float32) / 255 for path in PHOTOGRAPHS]

    says = craft_jax.predict(tuned, black_box, PHOTOGRAPHS)
    np.testing.assert_allclose(whole.call(np.stack(squares)), says, atol=2e-5)
    np.testing.assert_allclose(whole.call(np.stack(squares[:2])), says[:2], atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["refined", "on_probes"])
def test_what_the_page_shows_works_without_craft_jax(head, tuned, small_black_box, request, tmp_path):
    model = tuned if head == "refined" else request.getfixturevalue(head)
    page = (ROOT / "docs" / "export.md").read_text()
    save(tmp_path / "runs" / "demo", model)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (tmp_path / "craft_jax").mkdir()
    (tmp_path / "craft_jax" / "assets").symlink_to(ROOT / "craft_jax" / "assets")
    (shell,) = re.findall(r"```sh\ncraft-jax (.*?)\n```", page)
    environment = processes.environment(PYTHONPATH=str(ROOT))
    command_line = [sys.executable, "-P", "-m", "craft_jax", *shell.split()]
    subprocess.run(command_line, cwd=tmp_path, env=environment, check=True, capture_output=True)
    path = re.search(r"docs/photographs/\w+\.jpg", page).group()
    (says,) = craft_jax.predict(model, small_black_box, [ROOT / path])

    snippets = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        alone = "import sys\nsys.modules['craft_jax'] = None\n" + snippet
        done = subprocess.run(
            [sys.executable, "-c", alone], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
        )
        name, _, score = done.stdout.strip().rpartition(" ")
        assert name == small_black_box.class_names[says.argmax()]
        assert float(score) == pytest.approx(says.max(), abs=2e-5)
