import torch

from graft.tasks.common.core.torch_threads import one_torch_thread


def test_torch_has_its_threads_again_afterwards():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_torch_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
