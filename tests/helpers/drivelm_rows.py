"""Answers to questions about one frame, some of which name objects by their coordinates."""

from prune2drive.sample import Prediction

CAR, VAN, BUS = "<c1,CAM_BACK,1088.3,497.5>", "<c2,CAM_FRONT,864.2,468.3>", "<c3,CAM_FRONT,1043.2,82.2>"


def row(number, question="What?", answer="Yes.", reference="Yes.", tags=(0,), frame="f", **kw):
    id = f"s_{frame}_{number}"
    return Prediction(id, question, answer, reference, tags=tuple(tags), scene="s", frame=frame, **kw)
