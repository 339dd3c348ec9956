from argparse import Namespace

from benchmarks import prefill


def test_all_methods_but_those_that_need_a_tower_are_measured():
    """Those that cut at shares of the depth know the decoder's, so that their cuts can be told."""
    found = prefill.methods(Namespace(pruners=["all"], layer=None, layers=8))
    assert {"tfps", "pact", "sparsevlm", "pyramiddrop", "staged"} <= found.keys()
    assert not {"none", "vispruner"} & found.keys()
    assert all(0 <= pruner.cuts[0] <= pruner.cuts[-1] < 8 for pruner in found.values())
