"""A neural reward gives one value through every trainer's adapter, inline, in a pool, over HTTP."""

from contextlib import closing
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from guerdon.backends.pool import PoolBackend  # noqa: E402
from guerdon.errors import ScoringFailed  # noqa: E402
from guerdon.models.scalar import ScalarRewardModel  # noqa: E402
from guerdon.models.tiny import make_tiny  # noqa: E402
from guerdon.registry import load_file  # noqa: E402
from guerdon.remote import RemoteReward  # noqa: E402
from guerdon.server import load  # noqa: E402
from guerdon.server.running import RunningServer  # noqa: E402

pytestmark = pytest.mark.neural

PARITY = Path(__file__).with_name("parity")
cases = load_file(str(PARITY / "cases.py"))
CLOSE = 1e-5
"""Between batches of other compositions, in float32; see tests/models."""


def adapter(name):
    return load_file(str(PARITY / f"{name}_adapter.py"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(make_tiny(tmp_path_factory.mktemp("rm")))


@pytest.fixture(scope="module", params=["inline", "pool", "remote"])
def place(request, checkpoint):
    """A reward and a backend, as adapters are given them."""
    options = {"model": checkpoint, "device": "cpu"}
    if request.param == "remote":
        hosted = {"rm": {"reward": {"name": "scalar_reward_model", **options}}}
        settings = {"rewards": hosted, "serve": {"port": 0, "drain_seconds": 5.0}}
        running = RunningServer(load(settings, environment={})).start()
        address = f"http://127.0.0.1:{running.server.port}"
        yield RemoteReward(address, "rm", retry={"attempts": 1}), None
        running.stop()
    elif request.param == "pool":
        with closing(PoolBackend(workers=1)) as one_worker:
            yield ScalarRewardModel(checkpoint, device="cpu"), one_worker
    else:
        yield ScalarRewardModel(checkpoint, device="cpu"), "inline"


@pytest.fixture(scope="module")
def expected(checkpoint):
    """The plain forward of transformers, one sample at a time."""
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    values = []
    for row in cases.ROWS:
        talk = [
            {"role": "user", "content": row.prompt},
            {"role": "assistant", "content": row.response},
        ]
        text = tokenizer.apply_chat_template(talk, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            values.append(float(model(**ids).logits[0, 0]))
    return values


@pytest.mark.parametrize("trainer", cases.ADAPTERS)
async def test_values_agree(trainer, place, expected):
    reward, backend = place
    seen = await adapter(trainer).score(reward, cases.ROWS, backend)
    if not getattr(adapter(trainer), "PROMPTS", True):
        # The trainer hands over no prompt: never a value of half a conversation.
        assert all(isinstance(found, ScoringFailed) for found in seen)
        assert "bad_input" in str(seen[0])
        return
    assert {found.kind for found in seen} == {"score"}
    assert [found.number for found in seen] == pytest.approx(expected, abs=CLOSE)
