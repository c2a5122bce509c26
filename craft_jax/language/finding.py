"""From settings to what a search has found: the proposer, its language model, the rounds, the result."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from craft_jax.blackbox import Described, Ledger, Metered
from craft_jax.config import ASKS_CHAT, ChatConfig, LanguageConfig, check_language
from craft_jax.distributed import hosts
from craft_jax.errors import UserError
from craft_jax.language import results, search
from craft_jax.language.ask_tell import Ask
from craft_jax.language.kept import Kept
from craft_jax.language.proposers import chat as chatting
from craft_jax.language.proposers import mutation
from craft_jax.language.proposers.conversation import Conversation
from craft_jax.language.results import Found
from craft_jax.language.search import Board, Shown
from craft_jax.language.wordings import Wording
from craft_jax.method import StackedHead

_MOST_ANSWERS = 2**28  # numbers kept in memory while the search goes


def find(
    black_box: Metered,
    shown: Shown,
    *,
    language: LanguageConfig,
    chat: ChatConfig,
    texts: int,
    seed: int,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Found:
    """Searches, or goes on where a killed run stopped; of several hosts the first one asks, and tells the others.

    Args:
      black_box: that takes texts, behind its meter.
      shown: the photographs.
      language: what is proposed, by whom, how much.
      chat: the language model, where one is asked.
      texts: of the head on all of them, at most.
      seed: of everything random.
      folder: of the run; what is kept in it is not asked again, and booked as it was.
      say: is told of each round, and of a file that is damaged.

    Raises:
      UserError: where a caption does not fit, an answer is not finite, memory would not hold the answers, or a language
        model refuses or does not answer.
    """
    check_language("texts", language, chat)

    def alone() -> dict[str, Any]:
        found = _find(black_box, shown, language, chat, texts, seed, folder, say)
        return _packed(found, Ledger())

    held = hosts.first_alone(alone)
    return _unpacked(held, json.loads(held["told"]))


def _find(
    black_box: Metered,
    shown: Shown,
    language: LanguageConfig,
    chat: ChatConfig,
    texts: int,
    seed: int,
    folder: Path | None,
    say: Callable[[str], None],
) -> Found:
    shown = _within_memory(shown, language, len(black_box.class_names))
    kept = Kept(folder, _key(black_box, shown, language, chat, texts, seed), say)
    held = kept.result()
    if held is not None:
        told = json.loads(str(held["told"]))
        black_box.meter.admit(Ledger(**told["cost"]))
        return _unpacked(held, told)
    meter = black_box.meter
    before = meter.ledger - meter.sent
    first = Wording(black_box.identity["template"])
    board = Board(black_box, shown, first, mixed=language.what != "templates", seed=seed)
    ask, spent = _proposer(language, chat, board, seed)
    pool = mutation.pool(first, language.start, language.what, black_box.class_names, seed)
    search.run(black_box, shown, board, pool=pool, ask=ask, spent=spent, wordings=language.wordings, kept=kept, say=say)
    if not board.state.scored:
        raise UserError("the query budget pays for no set of captions; raise query_budget")
    found = results.of_board(board, black_box, shown, texts=texts)
    kept.end(_packed(found, meter.ledger - meter.sent - before))
    return found


def _proposer(language: LanguageConfig, chat: ChatConfig, board: Board, seed: int) -> tuple[Ask, Callable[[], Ledger]]:
    """The one that the settings name, and what tells what its language model has taken."""
    names = board.class_names
    if language.proposer not in ASKS_CHAT:
        return mutation.build(count=language.each_round, what=language.what, class_names=names, seed=seed), Ledger
    conversation = Conversation(chat)
    if language.proposer == "published":
        ask = chatting.published(conversation.ask, class_names=names, calls=chat.calls)
    else:
        ask = chatting.build(
            conversation.ask, count=language.each_round, what=language.what, class_names=names, calls=chat.calls
        )
    return ask, lambda: conversation.sent


def _within_memory(shown: Shown, language: LanguageConfig, classes: int) -> Shown:
    """The photographs in as many views as memory holds answers about."""
    views, images = shown.shape
    of_view = images * classes * language.wordings
    fitting = _MOST_ANSWERS // of_view
    if not fitting:
        raise UserError(
            f"language.wordings={language.wordings} of {classes} classes about {images} images are {of_view:,} "
            f"answers, and {_MOST_ANSWERS:,} are kept in memory; lower language.wordings to "
            f"{_MOST_ANSWERS // (images * classes)}, or data.shots"
        )
    if fitting >= views:
        return shown
    return shown._replace(views=jax.tree.map(lambda leaf: leaf[:fitting], shown.views))


def _key(black_box: Described, shown: Shown, language: LanguageConfig, chat: ChatConfig, texts: int, seed: int) -> str:
    """Of everything that the answers depend on."""
    asked = (chat.model, chat.calls, chat.reply_tokens) if language.proposer in ASKS_CHAT else ()
    parts = (
        black_box.identity,
        black_box.class_names,
        shown.content,
        shown.shape,
        dataclasses.astuple(language),
        asked,
    )
    return hashlib.sha256(repr((*parts, texts, seed)).encode()).hexdigest()


def _packed(found: Found, cost: Ledger) -> dict[str, Any]:
    """What was found, and what it took, as arrays and JSON."""
    texts = {name: of for name, (of, _) in found.heads.items()}
    arrays = {
        f"{name}/{part}": leaf for name, (_, head) in found.heads.items() for part, leaf in head._asdict().items()
    }
    told = {"report": found.told, "texts": texts, "cost": dataclasses.asdict(cost)}
    return {"told": json.dumps(told), "target": found.target, **arrays}


def _unpacked(held: dict[str, Any], told: dict[str, Any]) -> Found:
    heads = {
        name: (tuple(of), StackedHead(held[f"{name}/weights"], held[f"{name}/bias"]))
        for name, of in told["texts"].items()
    }
    return Found(heads, held["target"], told["report"])
