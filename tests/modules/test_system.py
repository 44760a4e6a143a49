from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from ccd_lightning import functional as F
from ccd_lightning.backbones import BPRMF, Backbone, LightGCN, MultVAE
from ccd_lightning.data.history import History
from ccd_lightning.data.pairs import PairSet
from ccd_lightning.modules import PROXIES, CollaborativeDistillation, Student, Teacher, TeacherSystem
from ccd_lightning.objectives import top_items
from ccd_lightning.types import Stage, StageKind, StageSettings

from ..tiny import interactions, random_history

SIZES = [(10, 9), (13, 12), (15, 14)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def until(last: int) -> History:
    return History(random_history(SIZES).blocks[: last + 1])


def met(model: Backbone, last: int = 0) -> Backbone:
    model.meet(until(last), "neighbours", 3, generator(last))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator(last + 7))
    return model


def test_teacher_system_fuses_ranks_of_different_kinds():
    members = [met(BPRMF(4)), met(MultVAE(4)), met(LightGCN(3))]
    system = TeacherSystem(members, power=0.3)
    users = torch.tensor([3, 0, 9])
    expected = torch.zeros(3, 9, dtype=torch.float64)
    for member in members:
        scores = member.scores(users).detach()
        for row in range(3):
            for rank, item in enumerate(scores[row].argsort(descending=True).tolist()):
                expected[row, item] += (rank + 1) ** -0.3 / 3
    torch.testing.assert_close(system.scores(users).double(), expected, rtol=1e-5, atol=1e-6)


def test_only_models_that_know_somebody_are_measured():
    student, teachers = Student(BPRMF(4)), [Teacher(BPRMF(4)), Teacher(BPRMF(4))]
    system = CollaborativeDistillation(student, teachers)
    for model, roles in ((teachers[0], ()), (teachers[1], ("teacher",)), (student, ("teacher", "student"))):
        met(model.backbone)
        assert system.learned_roles() == roles


def test_teacher_system_knows_what_every_member_knows():
    members = [met(BPRMF(4), 0), met(BPRMF(4), 1)]
    system = TeacherSystem(members)
    assert (system.num_users, system.num_items) == SIZES[0]
    users = torch.arange(10)
    expected = F.fuse_ranks([members[0].scores(users), members[1].scores(users)[:, :9]])
    assert torch.equal(system.scores(users), expected)


def test_teacher_system_scores_in_evaluation_mode():
    class Dropping(BPRMF):
        def __init__(self):
            super().__init__(4)
            self.drop = nn.Dropout(0.5)

        def scores(self, users):
            return self.drop(super().scores(users))

    member = met(Dropping())
    system = TeacherSystem([member])
    assert torch.equal(system.scores(torch.arange(10)), system.scores(torch.arange(10)))
    assert member.drop.training
    nothing = PairSet(*interactions([]), *SIZES[0])
    assert top_items(system, 3, nothing, torch.device("cpu")).items.shape == (10, 3)


def small_system() -> CollaborativeDistillation:
    return CollaborativeDistillation(Student(BPRMF(4)), [Teacher(MultVAE(4)), Teacher(BPRMF(6))], ks=(2, 5))


def test_system_names_its_members_and_scores_by_role():
    system = small_system()
    assert [model.role for model in (system.student, *system.members())] == ["student", "teacher0", "teacher1"]
    for model in (system.student, *system.members()):
        met(model.backbone)
    users = torch.arange(4)
    expected = F.fuse_ranks([teacher.backbone.scores(users) for teacher in system.members()])
    torch.testing.assert_close(system.scorer("teacher").scores(users), expected)
    for role in ("student", "distilled"):
        assert torch.equal(system.scorer(role).scores(users), system.student.backbone.scores(users))
    assert torch.equal(system(users), system.predict_step(users, 0))
    assert system.learner(Stage(1, StageKind.TEACHER_UPDATE, 1)) is system.members()[1]
    assert system.learner(Stage(1, StageKind.STUDENT_UPDATE)) is system.student


def test_parameters_are_counted_by_role():
    system = small_system()
    for model in (system.student, *system.members()):
        met(model.backbone)
    assert system.num_parameters("student") == (10 + 9) * 4
    auto_encoder = 9 * 4 + 9 * 4 + 9 + 4 + 2 * (16 + 4)
    assert system.num_parameters("teacher") == (10 + 9) * 6 + auto_encoder


@pytest.mark.parametrize("backbone", [lambda: BPRMF(4), lambda: LightGCN(4), lambda: MultVAE(4)])
@pytest.mark.parametrize("momentum", [0.0, 0.7, 1.0])
def test_first_proxy_is_the_student_and_later_ones_are_averages_row_by_row(backbone, momentum):
    system = CollaborativeDistillation(Student(backbone()), [Teacher(BPRMF(4))])
    met(system.student.backbone)
    for name in PROXIES:
        system.update_proxy(name, momentum)
        for key, value in system.student.backbone.named_parameters():
            assert torch.equal(dict(system.proxy(name).named_parameters())[key], value)
    before = deepcopy(system.proxy("stability"))
    met(system.student.backbone, 1)
    system.update_proxy("stability", momentum)
    proxy = system.proxy("stability")
    assert (proxy.num_users, proxy.num_items) == SIZES[1]
    older = dict(before.named_parameters())
    for key, value in system.student.backbone.named_parameters():
        found = dict(proxy.named_parameters())[key]
        torch.testing.assert_close(found, F.merge_proxy(older[key], value, momentum))
        assert not found.requires_grad and value.requires_grad
    assert (system.proxy("plasticity").num_users, system.proxy("plasticity").num_items) == SIZES[0]


def test_proxies_keep_their_scores_while_the_student_learns_on():
    system = CollaborativeDistillation(Student(LightGCN(4)), [Teacher(BPRMF(4))])
    met(system.student.backbone)
    system.update_proxy("stability", 0.9)
    users = torch.arange(10)
    with torch.no_grad():
        before = system.proxy("stability").scores(users).clone()
        met(system.student.backbone, 1)
        assert torch.equal(system.proxy("stability").scores(users), before)


@pytest.mark.parametrize("momentum", [-0.1, 1.5])
def test_proxy_momentum_outside_the_unit_interval_is_refused(momentum):
    system = small_system()
    with pytest.raises(ValueError, match=rf"The stability proxy's momentum is {momentum}, but must lie in \[0, 1\]"):
        system.update_proxy("stability", momentum)


def test_state_of_a_system_restores_itself_into_a_new_one():
    system = small_system()
    for model in (system.student, *system.members()):
        met(model.backbone)
    system.update_proxy("stability", 0.9)
    met(system.student.backbone, 1)
    restored = small_system()
    restored.load_state_dict(system.state_dict())
    assert restored.student.backbone.num_users == SIZES[1][0]
    assert restored.proxy("stability").num_users == SIZES[0][0]
    assert restored.proxy("plasticity").num_users == 0
    users = torch.arange(10)
    assert torch.equal(restored.proxy("stability").scores(users), system.proxy("stability").scores(users))


def test_a_system_without_teachers_is_refused():
    with pytest.raises(ValueError, match="`teachers` is empty, but the teacher system needs at least one member"):
        CollaborativeDistillation(Student(BPRMF(4)), [])


def test_clusters_need_embeddings():
    assert Teacher(BPRMF(4), clusters=3).personal is not None
    with pytest.raises(ValueError, match="`clusters` is 3, but MultVAE has no embeddings to cluster"):
        Teacher(MultVAE(4), clusters=3)


def begin(student: Student, kind: StageKind, last: int, seed: int = 5) -> None:
    student.begin_stage(Stage(last, kind), StageSettings(), until(last), seed, 0)
    student.end_stage()


@pytest.mark.parametrize("backbone", [lambda: BPRMF(4), lambda: MultVAE(4)])
def test_a_fresh_start_forgets_and_is_the_same_after_a_resumption(backbone):
    first, resumed = Student(backbone()), Student(backbone())
    begin(first, StageKind.STUDENT_UPDATE, 1)
    state = deepcopy(first.state_dict())
    resumed.load_state_dict(state)
    for student in (first, resumed):
        student.start_afresh(1)
        begin(student, StageKind.DISTILLATION, 1)
    for name, value in first.backbone.named_parameters():
        assert torch.equal(value, dict(resumed.backbone.named_parameters())[name])
    assert not torch.equal(
        next(first.backbone.parameters()), state["backbone." + next(iter(dict(first.backbone.named_parameters())))]
    )
    kept = deepcopy(first.backbone.state_dict())
    begin(first, StageKind.DISTILLATION, 1)
    assert all(torch.equal(value, kept[name]) for name, value in first.backbone.state_dict().items())
