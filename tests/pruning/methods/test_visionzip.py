import pytest
import torch
from helpers.contexts import context, pools_of
from helpers.families import TOKENS
from helpers.reference import Stage, staged
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.errors import InputError
from prune2drive.pruning import VisionZip, prune
from prune2drive.pruning.context import Selection
from prune2drive.pruning.vision import VisionTokens

TEXTS = [[11, 12, 13], [21, 22, 23, 24, 25]]


def reference(tokens, received, keys, k, share=54 / 64):
    """Dominant tokens, and the contextual token at each target, one token at a time."""
    order = sorted(range(len(received)), key=lambda j: (-received[j], j))
    first = int(share * k + 0.5)
    dominant, others = sorted(order[:first]), sorted(order[first:])
    step = max(1, len(others) // max(1, k - first))
    targets = [others[step * i] for i in range(k - first)]
    joined = {target: [] for target in targets}
    unit = keys / keys.norm(dim=1, keepdim=True)
    for j in others:
        if targets and j not in joined:
            joined[max(targets, key=lambda target: float(unit[j] @ unit[target]))].append(j)
    contextual = {target: tokens[target] + (tokens[mine].mean(dim=0) if mine else 0) for target, mine in joined.items()}
    return dominant, contextual


def drawn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def select(tokens_CND, received_CN, keys_CNE, k, **options):
    seen = VisionTokens([received_CN.flatten()], [keys_CNE.flatten(0, 1)], [keys_CNE.flatten(0, 1)])
    cameras = tuple(f"c{index}" for index in range(len(tokens_CND)))
    shown = context(*pools_of(tokens_CND.shape[1], cameras), vision=lambda: seen)
    return VisionZip(**options).select(tokens_CND, k, shown)


@given(st.integers(0, 10**6), st.integers(2, 60), st.data())
def test_against_the_definition(seed, count, data):
    tokens, keys = drawn(2, count, 6, seed=seed), drawn(2, count, 4, seed=seed + 1)
    received = drawn(2, count, seed=seed + 2).abs()
    k, share = data.draw(st.integers(1, count - 1)), data.draw(st.sampled_from([0.0, 0.5, 54 / 64, 1.0]))
    apart = select(tokens, received, keys, k, dominant=share, contextual_last=False)
    last = select(tokens, received, keys, k, dominant=share)
    for pool in range(2):
        dominant, contextual = reference(tokens[pool], received[pool].tolist(), keys[pool], k, share)
        assert apart.picks_CK[pool].tolist() == [*dominant, *contextual]
        rows = torch.stack([*tokens[pool][dominant], *contextual.values()])
        torch.testing.assert_close(apart.rows_CKD[pool], rows)
        assert last.picks_CK[pool].tolist() == sorted([*dominant, *contextual])
        torch.testing.assert_close(last.rows_CKD[pool], rows)


def test_ties_go_to_the_lowest_index_and_all_tokens_stay_as_they_are():
    tokens, keys = drawn(1, 8, 3, seed=0), torch.ones(1, 8, 2, dtype=torch.float64)
    found = select(tokens, torch.ones(1, 8), keys, 4, dominant=0.5, contextual_last=False)
    assert found.picks_CK.tolist() == [[0, 1, 2, 5]]
    torch.testing.assert_close(found.rows_CKD[0, 2], tokens[0, 2] + tokens[0, [3, 4, 6, 7]].mean(dim=0))
    torch.testing.assert_close(found.rows_CKD[0, 3], tokens[0, 5])
    whole = select(tokens, torch.ones(1, 8), keys, 8)
    assert not isinstance(whole, Selection) and whole.tolist() == [list(range(8))]


@pytest.mark.parametrize("contextual_last", [True, False])
@pytest.mark.parametrize("scope", ["per_camera", "global"])
@pytest.mark.parametrize("name", ["llava", "smolvlm"])
def test_the_answer_in_a_model(make_family, name, scope, contextual_last):
    """On a ragged batch, against every prompt by itself: slots, and the first logits worked out by hand."""
    family, seen = make_family(name), {}

    class Probe(VisionZip):
        def select(self, tokens_CND, k, ctx):
            seen["vision"], seen["embeddings"] = ctx.vision(), ctx.embeddings_BPD
            return super().select(tokens_CND, k, ctx)

    pruner = Probe(scope=scope, dominant=0.6, contextual_last=contextual_last)
    with prune(family.model, pruner, 5 / TOKENS, **family.naming(TEXTS)) as trace:
        logits = family.model(**family.inputs(TEXTS)).logits[:, -1]
    for row, token_map in enumerate(trace.token_maps):
        embeddings_PD = seen["embeddings"][row, -token_map.length :]
        visual = (token_map.view_P >= 0).nonzero().flatten().tolist()
        stage = Stage(0, torch.empty(0))
        for cameras in [token_map.cameras] if scope == "global" else [(camera,) for camera in token_map.cameras]:
            at = torch.cat([token_map.positions(camera) for camera in cameras])
            of = [visual.index(position) for position in at.tolist()]
            received, keys = seen["vision"].received[row][of].tolist(), seen["vision"].keys[row][of]
            dominant, contextual = reference(embeddings_PD[at], received, keys, 5 * len(cameras), 0.6)
            slots = [*dominant, *contextual]
            rows = [*embeddings_PD[at][dominant], *contextual.values()]
            slots = sorted(slots) if contextual_last else slots
            stage.rows |= {int(at[slot]): state for slot, state in zip(slots, rows, strict=True)}
        text = (token_map.view_P < 0).nonzero().flatten().tolist()
        stage.kept_K = torch.tensor(sorted([*text, *stage.rows]))
        assert torch.equal(trace.positions[row], stage.kept_K)
        alone = family.inputs(TEXTS[row : row + 1], [row])
        expected = staged(family.model, alone, [stage], "renumber", 1)[1][0]
        assert (logits[row] - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llama"])
def test_a_tower_that_is_not_known(make_family, name):
    family = make_family(name)
    with pytest.raises(
        InputError, match="^VisionZip reads the vision tower's attention, which is not known for[^\n]*$"
    ):
        with prune(family.model, VisionZip(), 0.3, **family.naming(TEXTS)):
            pass


def test_an_impossible_share():
    with pytest.raises(InputError, match="dominant=1.5 is no share"):
        VisionZip(dominant=1.5)
