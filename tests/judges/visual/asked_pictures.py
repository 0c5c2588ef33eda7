"""Pictures, what a judge was asked about them, and the replies that a test writes."""

import base64
import io
import json
import math

import numpy as np
from aiohttp import web
from PIL import Image

from guerdon.media import video
from guerdon.outcome import Failure
from guerdon.policy import Policy
from guerdon.sample import Media, Sample
from guerdon.service import RewardService

MASK = Policy(on=dict.fromkeys(("scorer", "infrastructure", "data", "candidate"), "mask"))
AXES = "Alignment Score (1-5): {}\nCoherence Score (1-5): {}\nStyle Score (1-5): {}"
RED, GREEN, BLUE = ((250, 10, 10), (10, 250, 10), (10, 10, 250))


def picture(colour=RED, width=8, height=6):
    pixels = np.full((height, width, 3), colour, np.uint8)
    return Media(kind="image", array=pixels, layout="HWC", value_range="uint8")


def clip(*colours):
    frames = np.stack([np.full((6, 8, 3), colour, np.uint8) for colour in colours])
    return video(frames, layout="THWC")


def score(reward, *samples):
    with RewardService(reward, policy=MASK) as service:
        return list(service.score_sync(list(samples)))


def parts(asked):
    return asked["messages"][-1]["content"]


def pixels_in(asked):
    """The first pixel of each picture that a request shows."""
    urls = [part["image_url"]["url"] for part in parts(asked) if part["type"] == "image_url"]
    data = [base64.b64decode(url.partition("base64,")[2]) for url in urls]
    opened = [Image.open(io.BytesIO(one)).convert("RGB") for one in data]
    return [one.getpixel((0, 0)) for one in opened]


def replies(server, reply):
    """Let the server answer with a text, or with what a function makes of a request."""

    async def answer(request, asked, number):
        text = reply(asked) if callable(reply) else reply
        if isinstance(text, web.Response):
            return text
        choice = text if isinstance(text, dict) else {"message": {"content": text}}
        return web.json_response({"choices": [{"finish_reason": "stop", **choice}]})

    server.answer = answer


def lost(outcome, *words):
    assert isinstance(outcome, Failure), outcome
    for word in words:
        assert word in outcome.message, outcome.message
    return str(outcome.kind), str(outcome.blame)


def tokens(*alternatives, said=None):
    """A choice with the log-probabilities of its one token."""
    top = [{"token": token, "logprob": math.log(share)} for token, share in alternatives]
    token = said or alternatives[0][0]
    return {
        "message": {"content": token},
        "finish_reason": "length",
        "logprobs": {"content": [{"token": token, "logprob": 0.0, "top_logprobs": top}]},
    }


def winner(server, better):
    """Let the server prefer one of two pictures by what a function says of their colours."""

    def reply(asked):
        one, other = pixels_in(asked)
        return json.dumps({"reasoning": "so", "winner": better(one, other)})

    replies(server, reply)


def group(*pictures, **fields):
    return [
        Sample(prompt="x", images=(one,) if one else (), group_id="g", sample_id=str(n), **fields)
        for n, one in enumerate(pictures)
    ]
