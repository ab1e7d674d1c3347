"""`zoo embed`, `zoo evaluate`: features on disk, and what they are worth."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.cli.arguments import (
    Command,
    Parser,
    UsageError,
    add_backend,
    add_model,
    check_model,
    listed,
    load_model,
)
from zoo.cli.rooms import room
from zoo.files import write_json
from zoo.found import check_exists
from zoo.protocols import LABELLED, TRAINED, TRAINING, UNTRAINED, check_protocols, share_of_labels
from zoo.registry import card, find
from zoo.sources import classes_of, open_source, train_and_test
from zoo.tables import table
from zoo.words import counted

if TYPE_CHECKING:
    from zoo.cards import Result
    from zoo.encoder import Encoder
    from zoo.sources import Source

# Fewer test images than this leave an interval of tens of points.
FEW = 50

PHRASES = {
    "knn": "frozen features, labels of the nearest training images",
    "linear": "frozen features, a linear classifier fit by L-BFGS",
    "reconstruction": "error of the hidden patches that a model with a decoder fills in",
    "linear_sgd": "frozen encoder, a linear classifier by SGD on augmented views, its rate from a sweep",
    "lowshot": "fine-tuned on 1 % and 10 % of the labels",
    "finetune": "fine-tuned on all labels",
    "foreground": "attention maps against trimaps of the foreground; DATA is a parquet file with both",
}


def _embed_arguments(parser: Parser) -> None:
    add_model(parser)
    add_backend(parser)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="an image folder, a parquet file or folder, one image, or hf:owner/name[@revision][:split]",
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where part-00000.parquet … go")
    parser.add_argument(
        "--outputs",
        nargs="+",
        default=["pooled"],
        metavar="OUTPUT",
        help="pooled, cls, patches (default: pooled)",
    )
    parser.add_argument(
        "--dtype", default="float32", help="float32 or float16, of the lists (default: float32)"
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="images at a time (default: chosen by device)"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="threads that decode images (default: by CPU cores)"
    )
    parser.add_argument(
        "--engine",
        default="local",
        help="local, or ray: on a Ray cluster that sees the images (default: local)",
    )
    parser.add_argument(
        "--anew", action="store_true", help="write all parts anew instead of keeping the finished ones"
    )


def _embed(arguments: argparse.Namespace) -> None:
    check_model(arguments)
    source = open_source(arguments.source)  # what is missing is told before torch is imported
    encoder = load_model(arguments)
    from zoo.extraction import extract

    folder = extract(
        encoder,
        source,
        arguments.out,
        outputs=tuple(arguments.outputs),
        batch_size=arguments.batch_size,
        workers=arguments.workers,
        resume=not arguments.anew,
        engine=arguments.engine,
        dtype=arguments.dtype,
    )
    print(_embedded(len(source), folder))


def _embedded(total: int, folder: Path) -> str:
    """How many images have features now, how many have none and why, and how both are read."""
    from zoo.shards import SKIPPED, read_skipped

    skipped = len(read_skipped(folder))
    why = (
        f", {skipped:,} skipped as unreadable ({folder / SKIPPED} says why)" if skipped else ", none skipped"
    )
    read = f"in Python: paths, labels, arrays = zoo.read_features({str(folder)!r})"
    return f"embedded {counted(total - skipped, 'image')}{why}; their features are in {folder}\n{read}"


def _evaluate_arguments(parser: Parser) -> None:
    parser.epilog = (
        f"protocols:\n{listed(PHRASES)}\n\n"
        "linear_sgd, lowshot and finetune train: their knobs are a recipe's, such as --schedule.epochs 10 and\n"
        "--run.threads 2, or --optim.lr 5e-4 of the latter two.\n"
        "The same command again continues one that was stopped: until all scores are there, checkpoints lie in\n"
        "$ZOO_HOME/tuning (default: ~/.cache/ssl-zoo/tuning)."
    )
    add_model(parser)
    add_backend(parser)
    parser.add_argument("data", metavar="DATA", help="labelled images: a folder of class folders, or parquet")
    parser.add_argument("--test", metavar="DATA2", help="test on these instead of on a split of DATA")
    parser.add_argument(
        "--protocol",
        nargs="+",
        default=["knn"],
        metavar="PROTOCOL",
        help="any of those below, foreground on its own (default: knn)",
    )
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="also score the same architecture untrained (from scratch, where it is trained), and raw 16×16 pixels",
    )
    parser.add_argument(
        "--size", type=int, metavar="N", help="evaluate at N pixels (default: the model's own)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of lowshot's subsets, of probes, of fine-tuning and of the intervals (default: 0)",
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="at most N images of either split, evenly spread (default: all)",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the scores and all settings here")
    parser.add_argument(
        "--write-card", action="store_true", help="write the scores into the model's own card"
    )


def _evaluate(arguments: argparse.Namespace) -> None:
    _check_evaluate(arguments)
    if "foreground" in arguments.protocol:
        return _foreground(arguments)
    check_model(arguments)
    train, test, origin = train_and_test(arguments.data, arguments.test)
    if set(arguments.protocol) & set(LABELLED):
        classes_of(train, test)  # what is missing is told before torch is imported
    encoder = load_model(arguments, arguments.size)
    from zoo.evaluate.seen import told_seen

    print(origin, file=sys.stderr)
    if seen := told_seen(encoder.card, train, test):
        print(seen, file=sys.stderr)
    if arguments.limit is not None:
        train, test = train.spread(arguments.limit), test.spread(arguments.limit)
    scores = _scores(arguments, encoder, train, test)
    if arguments.limit is not None:  # a score on fewer images takes no other's place
        scores = [{**score, "settings": {**score["settings"], "limit": arguments.limit}} for score in scores]
    _tell(arguments, scores, test)


def _check_evaluate(arguments: argparse.Namespace) -> None:
    """UsageError, Unsupported or UnknownModel for words that do not go together: before anything is read or loaded."""
    if arguments.write_card and arguments.weights:
        raise UsageError(
            "--write-card would put the scores of other weights on the card; leave out --weights"
        )
    if arguments.write_card and arguments.backend != "torch":
        raise UsageError("a card says what PyTorch measures; leave out --write-card, and take --json FILE")
    if arguments.write_card:
        find(arguments.model)  # a repo's card is its owner's: refused before the work, not after it
    if "foreground" in arguments.protocol and (
        len(arguments.protocol) > 1 or arguments.test or arguments.limit is not None
    ):
        raise UsageError(
            "--protocol foreground stands on its own: without other protocols, --test and --limit"
        )
    check_protocols(arguments.protocol, [*PHRASES])
    if arguments.knobs and not set(arguments.protocol) & set(TRAINING):
        raise UsageError(f"{arguments.knobs[0]} is a knob of the protocols that train: {', '.join(TRAINING)}")
    if arguments.limit is not None and arguments.limit < 1:
        raise UsageError(f"--limit is {arguments.limit}; give 1 or more")


def _tell(arguments: argparse.Namespace, scores: list[dict[str, Any]], test: Source) -> None:
    """Print the scores, and write them where it is asked."""
    rows = [[*_told(score), score["test"], str(score["n_test"])] for score in scores]
    print(table(["protocol", "features", "score", "tested on", "images"], rows, right=["images"]))
    if len(test) < FEW:
        print(
            f"{counted(len(test), 'test image')}: too few to tell models apart; --test DATA2 takes others",
            file=sys.stderr,
        )
    if arguments.json:
        write_json(arguments.json, scores)
    if arguments.write_card:
        from zoo.evaluate.results import results_of

        told = [results_of(score, test, _command(arguments, score["protocol"])) for score in scores]
        write_results(arguments.model, [result for each in told for result in each])


def _scores(
    arguments: argparse.Namespace, encoder: Encoder, train: Source, test: Source
) -> list[dict[str, Any]]:
    """The rows of all protocols: those of frozen features first."""
    from zoo.evaluate import measure

    trained = [protocol for protocol in arguments.protocol if protocol in TRAINING]
    frozen = [protocol for protocol in arguments.protocol if protocol not in TRAINING]
    asked: dict[str, Any] = {"baselines": arguments.baselines, "seed": arguments.seed}
    if trained:
        tuning: dict[str, Any] = {"knobs": arguments.knobs, "seed": arguments.seed}
        room("training.scores").tuning_task(encoder, train, test, trained, **tuning)
    scores = measure(encoder, train, test, frozen, **asked) if frozen else []
    scratch = arguments.weights == "random"
    if scratch:
        scores = [{**score, "features": UNTRAINED} for score in scores]
    if trained:
        training = room("training.scores")
        scores += training.tuned_scores(
            encoder, train, test, trained, scratch=scratch, knobs=arguments.knobs, **asked
        )
    return scores


def _foreground(arguments: argparse.Namespace) -> None:
    """Foreground IoU of attention needs object masks, not labels."""
    check_exists(arguments.data)
    encoder = load_model(arguments, arguments.size)
    from zoo.evaluate.foreground import beside_untrained, foreground_scores
    from zoo.evaluate.results import foreground_results

    untrained = arguments.weights == "random"
    if arguments.baselines and not untrained:
        scores = beside_untrained(encoder, arguments.data)
    else:
        features = UNTRAINED if untrained else TRAINED
        scores = [{**foreground_scores(encoder, arguments.data), "features": features}]
    rows = [
        [f"attention of head {score['settings']['head']}, {score['features']}", f"{score['iou']:.3f}"]
        for score in scores
    ] + [
        [
            f"a centred box, {scores[0]['settings']['box_side']:.2f} of each side",
            f"{scores[0]['centre_box']:.3f}",
        ],
        ["the whole image", f"{scores[0]['whole_image']:.3f}"],
    ]
    print(table([f"IoU with the object in {scores[0]['n_test']} images", "mean"], rows, right=["mean"]))
    if arguments.json:
        write_json(arguments.json, scores)
    if arguments.write_card:
        command = _command(arguments, "foreground")
        write_results(
            arguments.model, [each for score in scores for each in foreground_results(score, command)]
        )


def _told(score: dict[str, Any]) -> tuple[str, str, str]:
    """Protocol, features and score of a row in words."""
    if score["protocol"] != "reconstruction":
        named = score["protocol"]
        if "share" in score:
            named += f", {share_of_labels(score['share'])}"
        top1 = f"{score['top1']:.2f} % ({score['low']:.1f}–{score['high']:.1f})"
        top5 = f", top-5 {score['top5']:.2f} %" if "top5" in score else ""
        minutes = f", {score['minutes']:.1f} min" if "minutes" in score else ""
        return named, score["features"], top1 + top5 + minutes
    told = f"{score['error']:.4f} on hidden pixels: {score['ratio']:.2f} × the mean colour's"
    return "reconstruction", "decoder", f"{told} (a smooth fill: {score['smooth_ratio']:.2f} ×)"


def write_results(model: str, results: Sequence[Result]) -> None:
    """Put the results on a model's card."""
    from zoo.cards import write_card
    from zoo.evaluate.results import with_results

    # Read anew: an encoder loaded at another size carries a card of that size.
    file = write_card(with_results(card(model), results), find(model))
    print(f"wrote the scores into {file}", file=sys.stderr)


def _command(arguments: argparse.Namespace, protocol: str) -> str:
    """The command that measures one score again."""
    words = ["zoo", "evaluate", arguments.model, arguments.data]
    for option in ("test", "size", "seed", "limit"):
        if value := getattr(arguments, option):
            words += [f"--{option}", str(value)]
    words += ["--protocol", protocol]
    if arguments.baselines:
        words.append("--baselines")
    return shlex.join([*words, *arguments.knobs] if protocol in TRAINING else words)


COMMANDS = (
    Command(
        "embed",
        "MODEL SOURCE --out FOLDER [options]",
        "write the features of many images to a folder of parquet",
        _embed_arguments,
        _embed,
    ),
    Command(
        "evaluate",
        "MODEL DATA [options]",
        "measure a model on labelled images, frozen or fine-tuned",
        _evaluate_arguments,
        _evaluate,
        takes_knobs=True,
    ),
)
