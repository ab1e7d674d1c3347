"""DINO against loops and a transcription of Algorithm 1 of 2104.14294, and against the authors' schedules."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Generator, Tensor, nn

from zoo.families import vit
from zoo.training.data import Batch
from zoo.training.engine import train_step
from zoo.training.methods import Step, ema_update
from zoo.training.methods.dino import DINO, DINOConfig, DINOHead, clip_each, pairwise_cross_entropy
from zoo.training.recipe import Recipe

K = 24
STEP = Step(0, 100, 10)
NOISE = torch.zeros(3, dtype=torch.int64)


@pytest.fixture
def small(tiny: Callable[..., Recipe]) -> Callable[..., DINO]:
    """`small(local_crops=2)`: a DINO of 24 prototypes with 32-px globals and 16-px locals."""

    def build(drop_path: float = 0.0, **knobs: object) -> DINO:
        torch.manual_seed(0)
        recipe = tiny("dino/smoke", method={"prototypes": K, **knobs}, arch={"drop_path": drop_path})
        method = recipe.method.build(recipe)
        assert isinstance(method, DINO)
        return method

    return build


def crops(local: int, count: int = 3, seed: int = 0) -> list[Tensor]:
    """Two global views and `local` small ones of `count` images."""
    generator = Generator().manual_seed(seed)
    sides = [32, 32, *[16] * local]
    return [torch.randn(count, 3, side, side, generator=generator) for side in sides]


def move_apart(method: DINO) -> None:
    """Give teacher and centre values of their own, as after some steps, so that no confusion goes unseen."""
    generator = Generator().manual_seed(7)
    for p in [*method.teacher.parameters(), *method.teacher_head.parameters()]:
        p.data += 0.05 * torch.randn(p.shape, generator=generator)
    method.centre += 0.1 * torch.randn(K, generator=generator)


# The loss


def softmax(logits: list[float], temperature: float) -> list[float]:
    top = max(logits)
    powers = [math.exp((logit - top) / temperature) for logit in logits]
    return [power / sum(powers) for power in powers]


def slow_loss(
    teacher: list[Tensor], student: list[Tensor], centre: Tensor, teacher_t: float, student_t: float
) -> float:
    """Mean over all pairs (teacher's view i, student's view v != i) of the mean cross-entropy over images."""
    pairs = []
    for i, v in itertools.product(range(len(teacher)), range(len(student))):
        if i == v:
            continue
        images = []
        for target, guess in zip(teacher[i].tolist(), student[v].tolist(), strict=True):
            p = softmax([t - c for t, c in zip(target, centre.tolist(), strict=True)], teacher_t)
            q = softmax(guess, student_t)
            images.append(-sum(a * math.log(b) for a, b in zip(p, q, strict=True)))
        pairs.append(sum(images) / len(images))
    return sum(pairs) / len(pairs)


@pytest.mark.parametrize("local", [0, 1, 4])
def test_loss_equals_the_loops(small: Callable[..., DINO], local: int) -> None:
    method = small(local_crops=local, teacher_temperature=0.05, warmup_temperature=0.05)
    move_apart(method)
    views = crops(local)
    loss, logs = method(views, STEP, NOISE)
    with torch.no_grad():  # a view at a time, whatever the method puts together
        teacher = [method.teacher_head(method.teacher(view)) for view in views[:2]]
        student = [method.student_head(method.student(view)) for view in views]
    assert loss.item() == pytest.approx(slow_loss(teacher, student, method.centre, 0.05, 0.1), rel=1e-5)
    targets = [softmax((row - method.centre).tolist(), 0.05) for rows in teacher for row in rows]
    entropies = [-sum(p * math.log(p) for p in target if p > 0) for target in targets]
    assert float(logs["teacher_entropy"]) == pytest.approx(sum(entropies) / len(entropies), rel=1e-4)


@pytest.mark.parametrize(("teachers", "students"), [(2, 2), (2, 6), (1, 3), (2, 10)])
def test_pairwise_cross_entropy_equals_the_loops(teachers: int, students: int) -> None:
    generator = Generator().manual_seed(teachers + students)
    targets = torch.rand(teachers, 5, 7, generator=generator).softmax(-1)
    guesses = torch.randn(students, 5, 7, generator=generator).log_softmax(-1)
    pairs = [
        -sum(float(targets[t, b, k] * guesses[v, b, k]) for b in range(5) for k in range(7)) / 5
        for t in range(teachers)
        for v in range(students)
        if t != v
    ]
    assert float(pairwise_cross_entropy(targets, guesses)) == pytest.approx(sum(pairs) / len(pairs), rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = pairwise_cross_entropy(targets, guesses)
    assert float(rounded) == pytest.approx(sum(pairs) / len(pairs), rel=1e-5)


@pytest.mark.parametrize("local", [0, 3])
def test_collapse_to_uniform_costs_the_logarithm_of_k(small: Callable[..., DINO], local: int) -> None:
    method = small(local_crops=local)
    with torch.no_grad():  # all prototypes alike: every output is uniform
        for head in (method.student_head, method.teacher_head):
            head.last_layer.copy_(head.last_layer[:1].expand_as(head.last_layer))
    loss, logs = method(crops(local), STEP, NOISE)
    assert loss.item() == pytest.approx(math.log(K), rel=1e-6)
    assert float(logs["teacher_entropy"]) == pytest.approx(math.log(K), rel=1e-5)


def test_a_lower_temperature_sharpens_the_teacher(small: Callable[..., DINO]) -> None:
    entropies = []
    for temperature in (0.02, 0.04, 0.07, 0.2):
        method = small(teacher_temperature=temperature, warmup_temperature=temperature)
        entropies.append(float(method(crops(2), STEP, NOISE)[1]["teacher_entropy"]))
    assert entropies == sorted(entropies)
    assert entropies[-1] < math.log(K)


def test_centring_takes_away_what_all_outputs_share(small: Callable[..., DINO]) -> None:
    method, views = small(local_crops=0), [crops(0)[0][:1].expand(3, -1, -1, -1)] * 2
    assert float(method(views, STEP, NOISE)[1]["teacher_entropy"]) < 0.9 * math.log(K)
    with torch.no_grad():
        method.centre.copy_(method.teacher_head(method.teacher(views[0]))[0])
    # Of outputs that are all the centre nothing is left.
    assert float(method(views, STEP, NOISE)[1]["teacher_entropy"]) == pytest.approx(math.log(K), rel=1e-5)


def test_the_head_gives_cosines(small: Callable[..., DINO]) -> None:
    torch.manual_seed(0)
    head = DINOHead(8, 16, 4, K)
    with torch.no_grad():
        logits = head(torch.randn(5, 8))
        assert logits.shape == (5, K)
        assert logits.abs().max() <= 1 + 1e-6
        head.last_layer.mul_(torch.rand(K, 1) + 0.5)  # the prototypes' lengths mean nothing
        head_again = copy.deepcopy(head)
        head_again.last_layer.mul_(3)
        x = torch.randn(5, 8)
        assert torch.allclose(head(x), head_again(x), atol=1e-6)


# Algorithm 1


class PaperHead(nn.Module):
    """The head as the authors build it: weight normalisation, its gain 1 and fixed where the head has none."""

    def __init__(self, head: DINOHead) -> None:
        super().__init__()
        self.mlp = copy.deepcopy(head.mlp)
        last = nn.Linear(head.last_layer.shape[1], head.last_layer.shape[0], bias=False)
        last.weight.data.copy_(head.last_layer.data)
        self.last = nn.utils.parametrizations.weight_norm(last.to(head.last_layer.dtype))
        self.last.parametrizations.weight.original0.data.fill_(1)
        self.last.parametrizations.weight.original0.requires_grad = head.last_gain is not None

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(nn.functional.normalize(self.mlp(x), dim=-1, p=2))
        return logits


def network(backbone: nn.Module, head: DINOHead) -> nn.Sequential:
    return nn.Sequential(copy.deepcopy(backbone), PaperHead(head))


def cross_entropy(t: Tensor, s: Tensor, centre: Tensor, tps: float, tpt: float) -> Tensor:
    """H of Algorithm 1."""
    t = t.detach()
    s = torch.softmax(s / tps, dim=1)
    t = torch.softmax((t - centre) / tpt, dim=1)
    return -(t * torch.log(s)).sum(dim=1).mean()


def algorithm_1(
    gs: nn.Module, gt: nn.Module, optimizer: torch.optim.Optimizer, batches: list[list[Tensor]],
    centre: Tensor, *, tps: float, tpt: float, momenta: list[float], m: float,
) -> tuple[Tensor, list[float]]:  # fmt: skip
    """Algorithm 1 of the paper, in its own letters; momenta is its l at each step."""
    losses = []
    for (x1, x2), l_ in zip(batches, momenta, strict=True):
        s1, s2 = gs(x1), gs(x2)
        t1, t2 = gt(x1), gt(x2)
        loss = cross_entropy(t1, s2, centre, tps, tpt) / 2 + cross_entropy(t2, s1, centre, tps, tpt) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for teacher, student in zip(gt.parameters(), gs.parameters(), strict=True):
                teacher.copy_(l_ * teacher + (1 - l_) * student)
            centre = m * centre + (1 - m) * torch.cat([t1, t2]).mean(dim=0)
        losses.append(loss.item())
    return centre, losses


OPTIMIZERS: dict[str, Callable[[list[Tensor]], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.005),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.04),
}


def in_double(method: DINO) -> DINO:
    """Both networks in double precision: AdamW turns the rounding of a gradient that is truly 0 into a whole step."""
    method.double()
    method.centre = method.centre.float()  # logits stay single
    return method


@pytest.mark.parametrize("norm_last", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_equal_algorithm_1(small: Callable[..., DINO], optimizer: str, norm_last: bool) -> None:
    paper = {"teacher_temperature": 0.04, "momentum": 0.9, "clip": None, "freeze_epochs": 0}
    method = in_double(small(local_crops=0, norm_last_layer=norm_last, **paper))
    gs = network(method.student, method.student_head)
    gt = network(method.teacher, method.teacher_head)
    batches = [[view.double() for view in crops(0, seed=seed)] for seed in range(4)]
    total = 8
    momenta = [1 - (1 - 0.9) * (math.cos(math.pi * k / total) + 1) / 2 for k in range(4)]

    theirs = OPTIMIZERS[optimizer]([p for p in gs.parameters() if p.requires_grad])
    centre, losses = algorithm_1(
        gs,
        gt,
        theirs,
        batches,
        torch.zeros(K, dtype=torch.float64),
        tps=0.1,
        tpt=0.04,
        momenta=momenta,
        m=0.9,
    )

    ours = OPTIMIZERS[optimizer]([p for p in method.parameters() if p.requires_grad])
    accelerator = Accelerator(cpu=True)
    for index, views in enumerate(batches):
        batch, step = Batch(views, NOISE, []), Step(index, total, 2)
        loss, _ = train_step(accelerator, method, method, ours, batch, step, seed=0)
        assert float(loss) == pytest.approx(losses[index], abs=1e-6)

    for (backbone, head), network_of in (
        ((method.student, method.student_head), gs),
        ((method.teacher, method.teacher_head), gt),
    ):
        assert farthest(backbone, network_of[0]) < 1e-6
        assert farthest(head.mlp, network_of[1].mlp) < 1e-6
        weight = network_of[1].last.parametrizations.weight
        assert (head.last_layer - weight.original1).abs().max() < 1e-6
        assert (head.last_gain is None) == norm_last
        if head.last_gain is not None:
            assert (head.last_gain - weight.original0).abs().max() < 1e-6
            assert (head.last_gain - 1).abs().max() > 1e-4
    assert (method.centre - centre).abs().max() < 1e-6
    # None of it would hold of networks that stood still.
    fresh = in_double(small(local_crops=0))
    assert farthest(method.student, fresh.student) > 1e-3
    assert farthest(method.teacher, fresh.student) > 1e-4
    assert method.centre.abs().max() > 1e-2


def farthest(a: nn.Module, b: nn.Module) -> float:
    """The largest difference of two networks' parameters."""
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return max((x - y).abs().max().item() for x, y in pairs)


# Gradients


def test_gradients_reach_all_of_the_student_and_none_of_the_teacher(small: Callable[..., DINO]) -> None:
    method = small()
    move_apart(method)
    method(crops(2), STEP, NOISE)[0].backward()
    for name, p in method.named_parameters():
        if name.startswith("student"):
            assert p.grad is not None and p.grad.isfinite().all() and p.grad.abs().sum() > 0, name
        else:
            assert p.grad is None and not p.requires_grad, name


def test_clips_each_tensor_on_its_own() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(2, 2))
    generator = Generator().manual_seed(0)
    given = []
    for factor, p in zip((10.0, 0.1, 3.0, 0.0, 100.0), module.parameters(), strict=False):
        p.grad = factor * torch.randn(p.shape, generator=generator)
        given.append(p.grad.clone())
    clip_each(module, 3.0)
    clipped = 0
    for p, before in zip(module.parameters(), given, strict=False):
        norm = math.sqrt(sum(float(g) ** 2 for g in before.flatten()))
        expected = before * 3.0 / norm if norm > 3.0 else before
        clipped += norm > 3.0
        assert p.grad is not None and torch.allclose(p.grad, expected, rtol=1e-5)
    assert clipped == 3
    assert list(module.parameters())[-1].grad is None


def test_clipping_without_gradients_does_nothing() -> None:
    module = nn.Linear(2, 2)
    clip_each(module, 3.0)
    assert module.weight.grad is None


@pytest.mark.parametrize("clip", [None, 0.01])
def test_clips_before_the_step_where_asked(small: Callable[..., DINO], clip: float | None) -> None:
    method = small(clip=clip, freeze_epochs=0)
    method(crops(2), STEP, NOISE)[0].backward()
    before = {name: p.grad.norm().item() for name, p in method.named_parameters() if p.grad is not None}
    method.before_step(STEP)
    after = {name: p.grad.norm().item() for name, p in method.named_parameters() if p.grad is not None}
    assert max(before.values()) > 0.1
    limit = math.inf if clip is None else clip
    assert after == pytest.approx({name: min(norm, limit) for name, norm in before.items()}, rel=1e-3)


def give_gradients(method: DINO) -> None:
    for p in method.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None


@pytest.mark.parametrize(
    ("freeze_epochs", "epochs", "frozen"),
    [
        (1, 10, [0]),
        (1, 100, [0]),
        (3, 100, [0, 1, 2]),
        (3, 10, [0]),  # at most a tenth of the run
        (0, 10, []),
    ],
)
def test_the_last_layer_is_frozen_at_first(
    small: Callable[..., DINO], freeze_epochs: float, epochs: int, frozen: list[int]
) -> None:
    method, per_epoch = small(freeze_epochs=freeze_epochs, norm_last_layer=False), 4
    for epoch, batch in itertools.product(range(min(epochs, 5)), (0, per_epoch - 1)):
        give_gradients(method)
        method.before_step(Step(epoch * per_epoch + batch, epochs * per_epoch, per_epoch))
        last = (method.student_head.last_layer, method.student_head.last_gain)
        assert [p is not None and p.grad is None for p in last] == 2 * [epoch in frozen]
        rest = [p.grad for p in (*method.student.parameters(), *method.student_head.mlp.parameters())]
        assert all(grad is not None for grad in rest)


def test_a_short_run_freezes_a_tenth_of_its_steps(small: Callable[..., DINO]) -> None:
    method = small(freeze_epochs=1)
    frozen = []
    for index in range(20):  # one epoch in all
        give_gradients(method)
        method.before_step(Step(index, 20, 20))
        frozen.append(method.student_head.last_layer.grad is None)
    assert frozen == [True] * 2 + [False] * 18


# Moving averages


@pytest.mark.parametrize(
    ("index", "expected"), [(0, 0.996), (250, 1 - 0.004 * (2 + math.sqrt(2)) / 4), (500, 0.998), (1000, 1.0)]
)
def test_momentum_by_hand(small: Callable[..., DINO], index: int, expected: float) -> None:
    assert small(momentum=0.996).momentum(Step(index, 1000, 10)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("index", [0, 50, 100])
def test_teacher_and_centre_move_by_hand(small: Callable[..., DINO], index: int) -> None:
    method = small(momentum=0.5, centre_momentum=0.9)
    move_apart(method)
    before, centre = copy.deepcopy(method.state_dict()), method.centre.clone()
    views, step = crops(2), Step(index, 100, 10)
    with torch.no_grad():
        outputs = [method.teacher_head(method.teacher(view)) for view in views[:2]]
    method(views, step, NOISE)
    method.after_step(step)
    share = {0: 0.5, 50: 0.75, 100: 1.0}[index]
    after = method.state_dict()
    for name, student in before.items():
        if name.startswith("student"):
            assert torch.equal(after[name], student)
            twin = name.replace("student", "teacher", 1)
            assert torch.allclose(after[twin], share * before[twin] + (1 - share) * student, atol=1e-6)
    rows = [row for output in outputs for row in output]
    assert torch.allclose(method.centre, 0.9 * centre + 0.1 * sum(rows) / len(rows), atol=1e-6)


def test_moving_average_leaves_buffers_alone() -> None:
    teacher, student = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    student(torch.randn(8, 3, generator=Generator().manual_seed(0)) + 5)
    nn.init.constant_(student.weight, 3.0)
    ema_update(teacher, student, 0.75)
    assert teacher.running_mean is not None and teacher.running_mean.tolist() == [0, 0, 0]
    assert teacher.weight.tolist() == pytest.approx([1.5] * 3)


def test_student_and_teacher_begin_alike(small: Callable[..., DINO]) -> None:
    method = small(drop_path=0.5)
    assert farthest(method.student, method.teacher) == 0
    assert farthest(method.student_head, method.teacher_head) == 0
    assert method.centre.abs().max() == 0
    assert method.encoder() is method.teacher


def test_starts_from_given_weights_in_both_networks(small: Callable[..., DINO]) -> None:
    method, other = small(), small()
    move_apart(other)
    method.start_from(other.teacher.state_dict(), None)
    assert farthest(method.student, other.teacher) == farthest(method.teacher, other.teacher) == 0


def test_drop_path_is_for_the_student_only(small: Callable[..., DINO]) -> None:
    method, views = small(drop_path=0.9), crops(0)
    method.train()
    with torch.no_grad():
        teacher = {method.teacher(views[0]).sum().item() for _ in range(3)}
        student = {method.student(views[0]).sum().item() for _ in range(3)}
    assert (len(teacher), len(student)) == (1, 3)


# The teacher's temperature


@pytest.mark.parametrize(
    ("warmup", "final", "temperature_epochs", "epochs"),
    [
        (0.04, 0.07, 30, 300),
        (0.04, 0.07, 30, 100),
        (0.04, 0.07, 10, 100),
        (0.04, 0.06, 2, 20),
        (0.04, 0.07, 1, 10),
        (0.04, 0.07, 0, 10),
        (0.04, 0.04, 30, 100),
        (0.04, 0.07, 30, 10),  # at most 30 % of the run: 3 epochs
        (0.04, 0.07, 30, 8),  # 2.4, so 2
        (0.04, 0.07, 30, 3),  # 0.9, so 1
        (0.04, 0.07, 30, 1),  # 0.3, so none
    ],
)
def test_temperature_is_the_authors_table(
    small: Callable[..., DINO], warmup: float, final: float, temperature_epochs: int, epochs: int
) -> None:
    method = small(
        warmup_temperature=warmup, teacher_temperature=final, temperature_epochs=temperature_epochs
    )
    rising = min(temperature_epochs, round(0.3 * epochs))
    table = [*np.linspace(warmup, final, rising), *[final] * (epochs - rising)]
    per_epoch = 3
    for index in range(epochs * per_epoch):
        temperature = method.temperature(Step(index, epochs * per_epoch, per_epoch))
        assert temperature == pytest.approx(table[index // per_epoch], abs=1e-9)


# Views


def test_views_are_two_globals_and_the_locals(small: Callable[..., DINO]) -> None:
    image = torch.randint(256, (3, 40, 50), generator=Generator().manual_seed(0)).to(torch.uint8)
    for local in (0, 3):
        cut = small(local_crops=local).views()
        views = cut(image, Generator().manual_seed(1))
        assert [tuple(view.shape) for view in views] == [(3, 32, 32)] * 2 + [(3, 16, 16)] * local
        state = torch.get_rng_state()
        again = cut(image, Generator().manual_seed(1))
        assert torch.equal(torch.get_rng_state(), state)
        assert all(map(torch.equal, views, again))
        assert all(not torch.equal(a, b) for a, b in itertools.combinations(views, 2) if a.shape == b.shape)
        assert not torch.equal(views[0], cut(image, Generator().manual_seed(2))[0])


def uncropped(tiny: Callable[..., Recipe], image: Tensor, seeds: int) -> list[list[Tensor]]:
    """The two globals and a local of a square image under many seeds, by a DINO whose crops are the whole image."""
    whole, side = (1.0, 1.0), image.shape[-1]
    recipe = tiny(
        "dino/smoke",
        method={"local_crops": 1, "local_size": side, "global_scale": whole, "local_scale": whole},
        data={"size": side},
    )
    cut = recipe.method.build(recipe).views()
    return [cut(image, Generator().manual_seed(seed)) for seed in range(seeds)]


def test_only_the_second_global_is_solarised(tiny: Callable[..., Recipe]) -> None:
    # White stays above half the range under every jitter of brightness, so that only solarisation makes it dark.
    white = torch.full((3, 16, 16), 255, dtype=torch.uint8)
    middle = (0.5 - 0.456) / 0.224
    dark = [[float(view[1].mean()) < middle for view in views] for views in uncropped(tiny, white, 100)]
    first, second, local = (sum(column) / len(column) for column in zip(*dark, strict=True))
    assert (first, local) == (0, 0)
    assert second == pytest.approx(0.2, abs=0.09)


def test_every_kind_of_view_is_blurred_as_often_as_the_authors_do(tiny: Callable[..., Recipe]) -> None:
    # Colours change pixel by pixel and leave two values two values; only blur mixes neighbours.
    bits = torch.randint(2, (1, 64, 64), generator=Generator().manual_seed(0))
    image = (60 + 120 * bits).to(torch.uint8).expand(3, -1, -1).contiguous()

    def spread(view: Tensor) -> float:
        """How far the levels of a channel are from the nearer of its two, in 8-bit steps."""
        levels = 255 * (view[1] * 0.224 + 0.456)
        return float(torch.minimum(levels - levels.min(), levels.max() - levels).max())

    blurred = [[spread(view) > 0.5 for view in views] for views in uncropped(tiny, image, 100)]
    # Sigma is U(0.1, 2 * 64 / 224) pixels; one below 0.27 changes these values by less than half a step.
    seen = (2 * 64 / 224 - 0.27) / (2 * 64 / 224 - 0.1)
    for column, probability in zip(zip(*blurred, strict=True), (1.0, 0.1, 0.5), strict=True):
        assert sum(column) / len(column) == pytest.approx(probability * seen, abs=0.1)


def test_defaults_are_the_authors() -> None:
    config = DINOConfig()
    assert (config.prototypes, config.hidden, config.bottleneck) == (65536, 2048, 256)
    assert (config.local_crops, config.local_size) == (8, 96)
    assert (config.global_scale, config.local_scale) == ((0.4, 1.0), (0.05, 0.4))
    assert (config.student_temperature, config.warmup_temperature, config.temperature_epochs) == (
        0.1,
        0.04,
        30,
    )
    assert (config.momentum, config.centre_momentum, config.clip, config.freeze_epochs) == (
        0.996,
        0.9,
        3.0,
        1,
    )


def test_the_encoder_is_the_family_s_own(small: Callable[..., DINO], tiny: Callable[..., Recipe]) -> None:
    recipe = tiny("dino/smoke")
    fresh = vit.build(recipe.arch.name, recipe.arch.arguments())
    fresh.load_state_dict(small().encoder().state_dict())
    assert vit.stride(fresh) == 16
