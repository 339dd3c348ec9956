import pytest
import torch
from helpers import families
from helpers.families import TOKENS
from helpers.reference import Stage, staged
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from prune2drive.errors import InputError
from prune2drive.pruning import PACT, prune
from prune2drive.pruning.clustering import by_density, centres, exactly
from prune2drive.pruning.selection import pairwise_distance

TEXTS = [[11, 12, 13], [21, 22, 23, 24, 25], [31]]
COUNTS = [3, 2, 3]


def distances(count, seed=0, width=4):
    return pairwise_distance(torch.randn(1, count, width, generator=torch.Generator().manual_seed(seed)))[0]


@given(st.integers(1, 60), st.floats(0, 2.1), st.integers(0, 9))
def test_centres_lie_apart_and_cover(count, cutoff, seed):
    distance = distances(count, seed)
    found = centres(distance, cutoff, count)
    assert found[0] == 0 and (found.diff() > 0).all()
    between = distance[found][:, found]
    assert (between[~torch.eye(len(found), dtype=torch.bool)] > cutoff).all()
    others = torch.tensor([at for at in range(count) if at not in found.tolist()], dtype=torch.long)
    assert (distance[others][:, found].amin(dim=1) <= cutoff).all() if len(others) else True
    assert len(found) == 1 or cutoff < 2


@given(st.integers(1, 60), st.floats(0, 2.1), st.integers(0, 9), st.data())
def test_the_cutoff_found_leaves_the_budget_and_none_nearer_to_the_usual_one_does(count, usual, seed, data):
    k = data.draw(st.integers(1, count))
    distance = distances(count, seed)
    cutoff, found = exactly(distance, k, usual)
    assert torch.equal(found, centres(distance, cutoff, k)) and len(found) == k
    number = len(centres(distance, usual, count))
    if number == k:
        assert cutoff == usual
    elif number < k:
        assert cutoff < usual and len(centres(distance, cutoff + 1e-6, count)) < k
    else:
        assert cutoff > usual and len(centres(distance, cutoff - 1e-6, count)) > k


def test_copies_fill_the_budget_in_the_order_of_density():
    """Six places for two different tokens."""
    distance = pairwise_distance(torch.eye(2).repeat_interleave(4, 0)[None])[0]
    assert exactly(distance, 6, 0.21)[1].tolist() == [0, 1, 2, 3, 4, 5]


def test_where_no_cutoff_leaves_the_budget_the_densest_centres_of_a_smaller_one_do():
    """Four tokens at one distance from each other are four clusters or one."""
    distance = (1 - torch.eye(4)) * 0.75
    for usual in (0.21, 1.0):
        cutoff, found = exactly(distance, 3, usual)
        assert found.tolist() == [0, 1, 2] and cutoff < 0.75


def slow(tokens, importance, keys, k, share=0.55, recover=1.5):
    """Kept slots, rows and sizes from the formulas in doubles, the cutoff by bisection."""
    count = len(tokens)
    survivors = sorted(sorted(range(count), key=lambda j: (-float(importance[j]), j))[: max(int(share * count), k)])
    unit = keys / keys.norm(dim=1, keepdim=True)
    distance = (1 - unit @ unit.T).clamp(min=0).tolist()
    density = {i: sum(2.718281828459045 ** -((distance[i][j] / 2) ** 2) for j in survivors) for i in survivors}
    order = sorted(survivors, key=lambda i: (-density[i], i))

    def visit(cutoff):
        found = []
        for i in order:
            if all(distance[i][j] > cutoff for j in found):
                found.append(i)
        return found

    number = len(visit(0.21))
    cutoff, above = (0.21, 0.21) if number == k else (0.0, 0.21) if number < k else (0.21, 2.0)
    for _ in range(24 * (number != k)):
        middle = (cutoff + above) / 2
        cutoff, above = (middle, above) if len(visit(middle)) >= k + (number > k) else (cutoff, middle)
    if number > k == len(visit(above)):
        cutoff = above
    heads = visit(cutoff)[:k]
    members = {head: [head] for head in heads}
    for j in range(count):
        if j in heads:
            continue
        nearest = min(heads, key=lambda head: distance[j][head])
        if j in survivors or distance[j][nearest] <= recover * cutoff:
            members[nearest].append(j)
    return {head: (tokens[own].mean(dim=0), len(own)) for head, own in members.items()}, len(visit(0.21))


@pytest.mark.parametrize("scope", ["global", "per_camera"])
@pytest.mark.parametrize("name", ["llama", "qwen3_vl", "llava_onevision_llama"])
def test_slots_rows_and_sizes_equal_the_formulas(make_family, name, scope):
    """On a ragged batch, against every prompt by itself; then the answer's first logits, worked out by hand."""
    family, layer, budget = make_family(name), 2, 5
    inputs, naming = family.inputs(TEXTS, counts=COUNTS), family.naming(TEXTS, COUNTS)
    with prune(family.model, PACT(layer=layer, scope=scope), budget / TOKENS, **naming) as trace:
        logits = family.model(**inputs).logits[:, -1]
    for row, token_map in enumerate(trace.token_maps):
        alone = family.inputs(TEXTS[row : row + 1], [row], COUNTS[row : row + 1])
        hidden, query, keys, rotated = entering(family.model, layer, alone)
        last = int((token_map.view_P >= 0).nonzero().max())
        mean = query[:, : last + 1].mean(dim=1)
        groups = len(query) // len(keys)
        logit = torch.stack([keys[h // groups, : last + 1] @ mean[h] for h in range(len(query))])
        weight = (logit / query.shape[2] ** 0.5).softmax(dim=1).mean(dim=0)
        raw, stage = 0, Stage(layer, torch.empty(0))
        for cameras in [token_map.cameras] if scope == "global" else [(camera,) for camera in token_map.cameras]:
            at = torch.cat([token_map.positions(camera) for camera in cameras])
            joined = torch.cat(list(rotated[:, at]), dim=1)
            found, usual = slow(hidden[at], weight[at] * hidden[at].norm(dim=1), joined, budget * len(cameras))
            raw += usual
            stage.rows |= {int(at[head]): mean_row.float() for head, (mean_row, _) in found.items()}
            stage.sizes |= {int(at[head]): size for head, (_, size) in found.items()}
        text = (token_map.view_P < 0).nonzero().flatten().tolist()
        stage.kept_K = torch.tensor(sorted([*text, *stage.rows]))
        assert torch.equal(trace.positions[row], stage.kept_K)
        assert trace.raw_tokens[row] == raw
        expected = staged(family.model, alone, [stage], "keep", 1)[1][0]
        assert (logits[row] - expected).abs().max() < 1e-4 * expected.abs().max()


@torch.no_grad()
def entering(model, layer, inputs):
    """States, queries and keys without and keys with rotary embedding of a layer, in doubles."""
    module, caught = model.get_decoder().layers[layer], {}
    hook = module.register_forward_pre_hook(
        lambda _, args, kwargs: caught.update(kwargs, hidden=args[0]), with_kwargs=True
    )
    model(**inputs)
    hook.remove()
    attention, states = module.self_attn, module.input_layernorm(caught["hidden"])
    query, keys = (
        getattr(attention, f"{name}_proj")(states).unflatten(-1, (-1, attention.head_dim)) for name in ("q", "k")
    )
    if hasattr(attention, "q_norm"):
        query, keys = attention.q_norm(query), attention.k_norm(keys)
    query, keys = query.transpose(1, 2), keys.transpose(1, 2)
    _, rotated = apply_rotary_pos_emb(query, keys, *caught["position_embeddings"])
    return (each[0].double() for each in (caught["hidden"], query, keys, rotated))


def test_proportional_attention_matters_and_flash_attention_is_refused(make_family):
    family = make_family("llava_onevision")
    inputs, naming = family.inputs(TEXTS, counts=COUNTS), family.naming(TEXTS, COUNTS)
    logits = []
    for proportional in (True, False):
        with prune(family.model, PACT(layer=2, proportional=proportional), 0.2, **naming):
            logits.append(family.model(**inputs).logits[:, -1])
    assert (logits[0] - logits[1]).abs().max() > 1e-3
    flash = families.make("llava")
    flash.model.get_decoder().config._attn_implementation = "flash_attention_2"
    with pytest.raises(InputError, match="PACT weighs .*flash_attention_2"), prune(flash.model, PACT(layer=2), 0.1):
        pass
    with prune(flash.model, PACT(layer=2, proportional=False), 0.1):
        pass


def clusters(tokens, k, share=1.0, keys=None):
    keys = tokens if keys is None else keys
    found = PACT(share=share).clusters(tokens[None], tokens.norm(dim=1)[None], pairwise_distance(keys[None]), k)
    return found.picks_CK[0], found.rows_CKD[0], found.sizes_CK[0], found.raw_C[0]


def test_clusters_are_the_usual_cutoff_s_where_that_leaves_the_budget():
    """Four pairs of directions; a pruned token 0.45 from the first joins none, as it would at the largest cutoff."""
    angle = torch.tensor([0.0, 0.1, 1.0, 1.1, 2.0, 2.1, 3.0])
    keys = torch.stack([angle.cos(), angle.sin(), torch.zeros(7)], dim=1)
    keys = torch.cat([keys, torch.tensor([[0.55, 0.0, 0.8352]])])
    importance = torch.arange(8, 0, -1.0)
    found = PACT(share=0.875).clusters(keys[None], importance[None], pairwise_distance(keys[None]), 4)
    assert found.raw_C == [4] and found.sizes_CK.sum() == 7
    wider = PACT(share=0.875, cutoff=0.31).clusters(keys[None], importance[None], pairwise_distance(keys[None]), 4)
    assert wider.raw_C == [4] and wider.sizes_CK.sum() == 8


def test_every_token_for_itself_is_the_identity():
    tokens = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    picks, rows, sizes, _ = clusters(tokens, 12)
    assert torch.equal(rows, tokens[picks]) and (sizes == 1).all() and picks.sort().values.tolist() == list(range(12))


def test_one_token_is_the_mean_of_all_survivors():
    tokens = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    _, rows, sizes, _ = clusters(tokens, 1)
    torch.testing.assert_close(rows[0], tokens.mean(dim=0))
    assert sizes.tolist() == [12]


def test_equal_tokens_merge_into_themselves():
    tokens = torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, 3]]).repeat_interleave(4, 0)
    picks, rows, sizes, raw = clusters(tokens, 3)
    assert torch.equal(rows, tokens[picks]) and sizes.tolist() == [4, 4, 4] and raw == 3


@given(st.integers(1, 40), st.data())
def test_members_and_dropped_tokens_are_all_there_are(count, data):
    k = data.draw(st.integers(1, count))
    tokens = torch.randn(count, 4, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 9))))
    picks, _, sizes, raw = clusters(tokens, k, share=0.55)
    survivors = max(int(0.55 * count) or 1, k)
    assert len(set(picks.tolist())) == k and (sizes >= 1).all()
    assert survivors <= sizes.sum() <= count
    assert 1 <= raw <= max(int(0.55 * count), 1)


def test_the_densest_comes_first():
    points = torch.tensor([[0.0, 1], [1, 0.1], [1, 0], [1, -0.1]])
    assert by_density(pairwise_distance(points[None])[0])[0] == 2 - 1  # all but the first are near it


@pytest.mark.parametrize(("options", "says"), [({"share": 0}, "share=0"), ({"cutoff": -1}, "cutoff=-1")])
def test_bad_options_are_refused(options, says):
    with pytest.raises(InputError, match=says):
        PACT(**options)
