import numpy as np
import torch

from nnunetv2_rmr.losses.restoration import LoggedTerms


def test_logged_terms_are_means_over_the_steps_since_they_were_taken_last():
    loss = LoggedTerms(("a", "b"))
    for value in (1.0, 3.0):
        loss.log({"a": torch.tensor(value)})
    taken = loss.take()
    assert taken["a"] == 2 and np.isnan(taken["b"])
    assert np.isnan(loss.take()["a"])
